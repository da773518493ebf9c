"""The measurement itself: candidates in turns, rounds in opposite orders, medians over rounds."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gateway.preprocessing.workers import Preprocessing, Workers
from gateway.settings import Settings
from gateway.tuning import load, ranking, server, trials
from gateway.tuning.candidates import Candidate, Choice
from gateway.tuning.load import Window
from gateway.tuning.server import Served
from gateway.tuning.trials import Subject


class Effort(NamedTuple):
    """The SLO and the load: `users` in a closed loop, `rounds` windows of `seconds` for each."""

    slo_ms: float
    users: int
    seconds: float
    rounds: int


async def search(
    subject: Subject,
    choice: Choice,
    effort: Effort,
    inputs: Sequence[Any],
    settings: Settings,
    say: Callable[[str], None],
) -> dict[Candidate, list[Window]]:
    """Serve all candidates, and load one after the other; the hopeless drop out.

    Raises TuningError, EnvironmentFailure, PreprocessorUnavailable.
    """
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tune-", dir=settings.run_dir) as name:
        repository, run_dir = Path(name) / "models", Path(name) / "run"
        trials.build(repository, subject, choice.measured)
        run_dir.mkdir()
        worker = await _worker(subject, settings.model_copy(update={"run_dir": run_dir}))
        try:
            bodies = await load.bodies(worker, inputs)
        finally:
            await worker.close()
        say("loading the candidates")
        async with server.serving(settings, repository, run_dir) as gateway:
            return await _rounds(gateway, choice, effort, bodies, say)


async def _rounds(
    gateway: Served,
    choice: Choice,
    effort: Effort,
    bodies: Sequence[bytes],
    say: Callable[[str], None],
) -> dict[Candidate, list[Window]]:
    results: dict[Candidate, list[Window]] = {candidate: [] for candidate in choice.measured}
    left = choice.measured
    for number in range(effort.rounds):
        say(f"round {number + 1} of {effort.rounds}: {len(left)} candidates")
        for candidate in left if number % 2 == 0 else reversed(left):
            model, release = trials.names(candidate)
            results[candidate].append(
                await load.measure(gateway, model, release, bodies, effort.users, effort.seconds)
            )
        if number + 1 == ranking.JUDGED_AFTER:
            left = ranking.promising(results, choice.now, effort.slo_ms)
    return results


async def _worker(subject: Subject, settings: Settings) -> Preprocessing:
    if subject.release.isolation == "inline":
        return await Workers(settings).inline(subject.release.preprocessor)
    locked = subject.locked
    return await Workers(settings).isolated(locked.preprocessor, locked.requirements)
