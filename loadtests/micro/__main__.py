"""The command line: `python -m loadtests.micro` (or `make bench-micro`)."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import msgspec

from loadtests.load import machine
from loadtests.load.limit import Limit
from loadtests.load.service import ServiceError
from loadtests.load.stack import Stack, copy
from loadtests.load.window import WrongAnswers
from loadtests.micro import inputs, report
from loadtests.micro.aims import AIMS, Round, windows_of
from loadtests.micro.arms import ONCE, Arms, Sample
from loadtests.micro.bare_handler import started

MODELS = ("minilm", "tumor")
NAMES = (*(aim.name for aim in AIMS), "stages")
ROUNDS, SECONDS, TEXTS = 5, 4.0, 2000
#: What a smoke run measures, in windows of how many seconds, over how many texts.
SMOKE = tuple(name for name in NAMES if name != "int8-overlap")
SMOKE_ROUNDS, SMOKE_SECONDS, SMOKE_TEXTS = 2, 1.0, 370


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", type=int, help=f"how often each window is measured, in turn [{ROUNDS}]")
@click.option("--seconds", type=float, help=f"length of one window [{SECONDS:g}]")
@click.option("--arms", help=f"which aims to measure, comma separated: {', '.join(NAMES)} [all]")
@click.option("--out", default=Path(".run/bench-micro"), type=Path, help="folder of the report")
@click.option("--smoke", is_flag=True, help="a short run that fails when a floor is not held")
def main(
    rounds: int | None, seconds: float | None, arms: str | None, out: Path, smoke: bool
) -> None:
    """Measure the gateway against the machine's own limit, in one interleaved run.

    Writes report.json and report.md, and prints the latter.
    """
    chosen = arms.split(",") if arms else SMOKE if smoke else NAMES
    if unknown := set(chosen) - set(NAMES):
        raise click.BadParameter(f"no arm {min(unknown)!r}; there are {', '.join(NAMES)}")
    rounds = rounds or (SMOKE_ROUNDS if smoke else ROUNDS)
    seconds = seconds or (SMOKE_SECONDS if smoke else SECONDS)
    command = f"python -m loadtests.micro --rounds {rounds} --seconds {seconds:g}"
    command += (f" --arms {arms}" if arms else "") + (" --smoke" if smoke else "")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # which ends what was started, too
    try:
        found = _measure(rounds, seconds, chosen, out, SMOKE_TEXTS if smoke else TEXTS, command)
    except (ServiceError, WrongAnswers) as error:
        raise click.ClickException(str(error)) from None
    (out / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    text = report.markdown(found)
    (out / "report.md").write_text(text)
    click.echo(text)
    if smoke and (broken := [aim["name"] for aim in found["aims"] if aim["broken"]]):
        raise click.ClickException(f"below their floors: {', '.join(broken)}")


def _measure(
    rounds: int, seconds: float, chosen: Sequence[str], out: Path, texts: int, command: str
) -> dict[str, Any]:
    """Start everything, measure all rounds, and return the report."""
    folder = out / "work"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    given = inputs.write(folder, texts)
    with ExitStack() as running:
        click.echo("starting the gateway and the bare model", err=True)
        stack = running.enter_context(Stack(folder, copy(MODELS, folder / "repository")))
        limit = running.enter_context(Limit(given.texts))
        bare = running.enter_context(started(stack.stamps("tumor")["1"]))
        arms = Arms(stack, limit, bare, given, seconds)
        facts = machine.facts(stack.triton, limit.versions)
        wanted = windows_of(chosen) | ({"stages"} & set(chosen))
        done = [_round(arms, number, wanted) for number in range(rounds)]
        skipped = {name: why for name, why in arms.skipped.items() if name in wanted}
    shutil.rmtree(folder / "repository")
    return report.build(done, skipped, facts, command)


def _round(arms: Arms, number: int, wanted: set[str]) -> Round:
    """Measure every wanted window once; every other round in the opposite order."""
    arms.begin(number)
    left_out = {*arms.skipped, *(ONCE if number else ())}
    names = [name for name in arms.windows if name in wanted - left_out]
    found: dict[str, Sample] = {}
    for name in names if number % 2 == 0 else reversed(names):
        found[name] = arms.windows[name]()
        rate = found[name].figures.get("rate")
        click.echo(f"round {number + 1}, {name}" + (f": {rate:.0f}/s" if rate else ""), err=True)
    return found


if __name__ == "__main__":
    main()
