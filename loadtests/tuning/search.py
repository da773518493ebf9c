"""The measurement itself: candidates in turns, rounds in opposite orders, medians over rounds."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from gateway.preprocessing.workers import Workers
from gateway.processes import variables
from gateway.settings import Settings
from loadtests.load.service import ServiceError
from loadtests.load.stack import Stack
from loadtests.tuning import load, ranking, trials
from loadtests.tuning.candidates import Candidate, Choice, TuningError
from loadtests.tuning.load import Window
from loadtests.tuning.trials import Subject


class Effort(NamedTuple):
    """The SLO and the load: `users` in a closed loop, `rounds` windows of `seconds` for each."""

    slo_ms: float
    users: int
    seconds: float
    rounds: int


def search(
    subject: Subject,
    choice: Choice,
    effort: Effort,
    inputs: Sequence[Any],
    settings: Settings,
    say: Callable[[str], None],
) -> dict[Candidate, list[Window]]:
    """Serve all candidates, and load one after the other; the hopeless are dropped.

    Raises TuningError, EnvironmentFailure, PreprocessorUnavailable.
    """
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tune-", dir=settings.run_dir) as name:
        repository, run_dir = Path(name) / "models", Path(name) / "run"
        trials.build(repository, subject, choice.measured)
        run_dir.mkdir()
        own = settings.model_copy(update={"run_dir": run_dir})
        bodies = asyncio.run(_bodies(subject, inputs, own))
        say("loading the candidates")
        ports = {f"triton_{kind}_port": 0 for kind in ("grpc", "http", "metrics")}
        alone = own.model_copy(update={**ports, "processes": 1, "models": (), "triton": ()})
        try:
            with Stack(run_dir, repository, variables(alone)) as stack:
                _require_ready(stack, choice.measured)
                return _rounds(stack, choice, effort, bodies, say)
        except ServiceError as error:
            raise TuningError(f"the candidates cannot be served: {error}") from None


def _require_ready(stack: Stack, candidates: Sequence[Candidate]) -> None:
    """Raise TuningError where a candidate's release does not serve, with its reason."""
    shown = httpx.get(f"{stack.url}/models").raise_for_status().json()["models"]
    models = {each["model"]: each["releases"] for each in shown}
    for model, release in map(trials.names, candidates):
        state = models[model][release]
        if state["state"] != "ready":
            reason = state.get("reason", "no reason given")
            raise TuningError(f"candidate {model}/{release} is {state['state']}: {reason}")


def _rounds(
    stack: Stack,
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
            names = trials.names(candidate)
            window = load.measure(stack, *names, bodies, effort.users, effort.seconds)
            results[candidate].append(asyncio.run(window))
        if number + 1 == ranking.JUDGED_AFTER:
            left = ranking.promising(results, choice.now, effort.slo_ms)
    return results


async def _bodies(subject: Subject, inputs: Sequence[Any], settings: Settings) -> list[bytes]:
    """Return the requests' bodies, as the release's own preprocessor takes them."""
    workers, locked = Workers(settings), subject.locked
    if subject.release.isolation == "inline":
        worker = await workers.inline(subject.release.preprocessor)
    else:
        worker = await workers.isolated(locked.preprocessor, locked.requirements)
    try:
        return await load.bodies(worker, inputs)
    finally:
        await worker.close()
