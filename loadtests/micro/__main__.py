"""The command line: `python -m loadtests.micro` (or `make bench-micro`)."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import msgspec

from loadtests.micro import inputs, machine, report
from loadtests.micro.aims import AIMS, Round, windows_of
from loadtests.micro.arms import ONCE, Arms, Sample, WrongAnswers
from loadtests.micro.bare_handler import started
from loadtests.micro.limit import Limit
from loadtests.micro.stack import Stack, StackError

MODELS = ("minilm", "tumor")
NAMES = (*(aim.name for aim in AIMS), "stages")
TEXTS = 2000
#: What a smoke run measures, in windows of how many seconds, over how many texts.
SMOKE = ("singles-64", "batches", "one-user", "int8", "tumor", "beside-batches", "stages")
SMOKE_ROUNDS, SMOKE_SECONDS, SMOKE_TEXTS = 2, 1.0, 370


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--rounds", default=5, help="how often each window is measured, in turn")
@click.option("--seconds", default=4.0, help="length of one window")
@click.option("--arms", default=",".join(NAMES), help="which aims to measure")
@click.option("--out", default=Path(".run/bench-micro"), type=Path, help="folder of the report")
@click.option("--smoke", is_flag=True, help="a short run that fails when a floor is not held")
def main(rounds: int, seconds: float, arms: str, out: Path, smoke: bool) -> None:
    """Measure the gateway against the machine's own limit, in one interleaved run.

    Writes report.json and report.md, and prints the latter.
    """
    chosen = arms.split(",")
    if unknown := set(chosen) - set(NAMES):
        raise click.BadParameter(f"no arm {min(unknown)!r}; there are {', '.join(NAMES)}")
    command = f"python -m loadtests.micro --rounds {rounds} --seconds {seconds:g} --arms {arms}"
    if smoke:
        rounds, seconds, chosen = SMOKE_ROUNDS, SMOKE_SECONDS, [*SMOKE]
        command = "python -m loadtests.micro --smoke"
    try:
        found = _measure(rounds, seconds, chosen, out, SMOKE_TEXTS if smoke else TEXTS, command)
    except (StackError, WrongAnswers) as error:
        raise click.ClickException(str(error)) from None
    (out / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    text = report.markdown(found)
    (out / "report.md").write_text(text)
    click.echo(text)
    broken = [aim["name"] for aim in found["aims"] if aim["broken"]]
    if smoke and broken:
        raise click.ClickException(f"below their floors: {', '.join(broken)}")


def _measure(
    rounds: int, seconds: float, chosen: list[str], out: Path, texts: int, command: str
) -> dict[str, Any]:
    """Start everything, measure all rounds, and return the report."""
    folder = out / "work"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    given = inputs.write(folder, texts)
    with ExitStack() as running:
        click.echo("starting the gateway and the bare model", err=True)
        stack = running.enter_context(Stack(folder, MODELS))
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
