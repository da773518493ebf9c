"""`gateway tune`: how a model is best placed on this machine; threads planned over all models."""

from __future__ import annotations

import math
import signal
from pathlib import Path
from typing import Any

import click
import msgspec

from gateway.commands.options import options, settings
from gateway.preprocessing.environments import EnvironmentFailure
from gateway.preprocessing.installed import PreprocessorUnavailable
from gateway.releases import lock, manifest
from gateway.releases.lock import LockError
from gateway.releases.manifest import ManifestError
from gateway.settings import Settings
from gateway.system import limits
from gateway.telemetry import logs
from gateway.triton.configs import ConfigError
from loadtests.tuning import candidates, placement, plan, ranking, trials
from loadtests.tuning.candidates import Candidate, Choice, Grid, TuningError
from loadtests.tuning.search import Effort, search
from loadtests.tuning.trials import Subject

#: Other programs that had more than this share of the machine make the figures doubtful.
QUIET = 0.05
WHOLE = click.IntRange(min=1)


class Numbers(click.ParamType["tuple[int, ...]"]):
    """Whole numbers, comma separated."""

    name = "N,…"

    def __init__(self, least: int = 1) -> None:
        self._least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read them, each once and in order."""
        parts = [part.strip() for part in str(value).split(",")]
        if not all(part.isdecimal() and int(part) >= self._least for part in parts):
            self.fail(f"{value!r} is no list of whole numbers from {self._least}", param, ctx)
        return tuple(sorted({int(part) for part in parts}))


@click.command()
@click.argument("model", required=False)
@click.option("--plan", "planning", is_flag=True, help="threads over all models; measures nothing")
@click.option("--busy", metavar="MODEL,…", default="", help="--plan: those at work at once  [all]")
@click.option("--release", metavar="NAME", help="release to tune  [the one with most traffic]")
@click.option("--slo-ms", default=50.0, show_default=True, help="p99 that must be kept")
@click.option("--users", default=16, show_default=True, type=WHOLE, help="users in a closed loop")
@click.option("--seconds", default=2.0, show_default=True, help="length of a window")
@click.option("--rounds", default=5, show_default=True, type=WHOLE, help="windows of a candidate")
@click.option("--instances", type=Numbers(), help="instances to try  [powers of 2]")
@click.option("--threads", type=Numbers(), help="threads of an instance to try  [powers of 2]")
@click.option("--rows", type=Numbers(), default="4,8,16", show_default=True, help="most in a call")
@click.option(
    "--delay-us", type=Numbers(0), default="0", show_default=True, help="Triton's waits to merge"
)
@click.option("--cores", type=WHOLE, help="cores that may be used  [all]")
@click.option(
    "--inputs",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON list of instances to send  [golden cases, texts also in part]",
)
@options(
    *("repository", "models_python", "triton_deploy", "triton_threads", "wheelhouse"),
    *("environments", "offline", "run_dir", "workers"),
)
def tune(
    model: str | None,
    planning: bool,
    busy: str,
    release: str | None,
    instances: tuple[int, ...] | None,
    threads: tuple[int, ...] | None,
    rows: tuple[int, ...],
    delay_us: tuple[int, ...],
    cores: int | None,
    inputs: Path | None,
    slo_ms: float,
    users: int,
    seconds: float,
    rounds: int,
    **given: Any,
) -> None:
    """Find instances × threads, rows of a call and delay that serve MODEL best on this machine.

    Serves every candidate from a copy of the model behind a gateway and an embedded Triton of
    its own, loads them in turns with single requests, and prints a table and what to change. The
    best has the highest rate among those whose p99 keeps the SLO; of rates within 3 % the smaller
    one wins. Combinations of more threads than cores are skipped. All candidates are in memory
    at once.

    With --plan: who asks for how many of the cores. Exits with 1 where TorchScript models
    disagree on INTRA_OP_THREAD_COUNT, which the container has once for all of them.
    """
    if planning == bool(model):
        raise click.UsageError("give either a MODEL or --plan")
    config = settings({**given, "log_level": "error"})
    logs.configure(config)
    cores = cores or max(1, math.floor(limits.cores()))
    try:
        if not model:
            _plan(config, [name.strip() for name in busy.split(",") if name.strip()], cores)
            return
        subject = trials.subject(config.repository, model, release)
        grid = Grid(instances, threads, rows, delay_us)
        effort = Effort(slo_ms, users, seconds, rounds)
        choice = _choice(config, subject, grid, cores)
        _announce(subject, choice, effort, cores)
        # SIGTERM ends it in order, so that no server is left behind.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        found = search(subject, choice, effort, _read(inputs), config, click.echo)
        for line in ranking.table(found, choice.now, slo_ms):
            click.echo(line)
        if (others := ranking.others(found)) > QUIET:
            click.echo(f"other programs had {others:.0%} of the machine: do not trust the figures")
        best = ranking.best(found, choice.now, slo_ms)
        if ranking.summary(found[best]).p99 > slo_ms:
            click.echo(f"no candidate keeps p99 ≤ {slo_ms:g} ms: the best has the lowest p99")
        click.echo(_advice(subject, best))
    except (
        *(TuningError, ConfigError, ManifestError, LockError, OSError),
        *(EnvironmentFailure, PreprocessorUnavailable),
    ) as error:
        raise click.ClickException(str(error)) from None


def _advice(subject: Subject, best: Candidate) -> str:
    """Say what to change in the model's files for the best candidate."""
    placed, name = subject.placed, subject.name
    lines = []
    if changed := placement.changes(placed, best.placement):
        lines += [f"set in {placed.path}:", changed]
        found = lock.read(placed.path.parent)
        names = " ".join(f"--relock {name}" for name in found.releases) if found else ""
        lines.append(
            f"then lock it again while no gateway serves it: gateway lock {placed.model} {names}"
        )
    if best.rows != subject.release.batching.max_rows:
        path = placed.path.parent / manifest.FILE
        lines.append(f"set in {path}, under [releases.{name}]: batching.max_rows = {best.rows}")
    return "\n".join(lines or ["nothing to change: the files say so already"])


def _plan(config: Settings, busy: list[str], cores: int) -> None:
    models = plan.models(config.repository)
    for line in plan.lines(models, busy, cores, config.triton_threads):
        click.echo(line)
    if found := plan.conflicts(models):
        raise TuningError("\n".join(found))


def _choice(config: Settings, subject: Subject, grid: Grid, cores: int) -> Choice:
    placed, batching = subject.placed, subject.release.batching
    now = Candidate(
        placed.placement.instances,
        placed.placement.threads or config.triton_threads,
        min(batching.max_rows, max(1, placed.max_batch_size)),
        placed.placement.delay_us,
    )
    others = [other for other in plan.models(config.repository) if other.path != placed.path]
    return candidates.choose(placed, now, others, grid, cores)


def _announce(subject: Subject, choice: Choice, effort: Effort, cores: int) -> None:
    name = f"{subject.placed.model}, release {subject.name}"
    count, seconds = len(choice.measured), effort.rounds * effort.seconds
    click.echo(
        f"{name}: {count} candidates on {cores} cores, {effort.users} users,"
        f" p99 ≤ {effort.slo_ms:g} ms; at most {count * seconds / 60:.1f} minutes of load"
    )
    for line in choice.skipped:
        click.echo(f"  skipped {line}")


def _read(inputs: Path | None) -> list[Any]:
    if inputs is None:
        return []
    try:
        found = msgspec.json.decode(inputs.read_bytes(), type=list[Any])
    except msgspec.DecodeError as error:
        raise TuningError(f"{inputs}: {error}") from None
    if not found:
        raise TuningError(f"{inputs}: the list is empty")
    return found
