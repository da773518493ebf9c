"""The command line: `python -m loadtests.bench` (or `make bench`, `make bench-quick`)."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import click
import httpx

from loadtests.bench import results, scenario
from loadtests.bench.agreement import Disagreement
from loadtests.bench.bench import QUICK_TEXTS, TEXTS, Bench
from loadtests.bench.rollout import RolloutError
from loadtests.bench.scenario import Set
from loadtests.load import machine
from loadtests.load.service import ServiceError
from loadtests.load.window import WrongAnswers

BUILT = Path(".run/bench-models")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, metavar="[SCENARIO]...")
@click.option("--quick", is_flag=True, help="the short set: it works, and no more is said")
@click.option("--arms", help="only these arms, comma separated")
@click.option("--out", default=Path(".run/bench"), type=Path, help="folder of what it writes")
@click.option("--list", "listed", is_flag=True, help="name the scenarios, and measure nothing")
def main(names: tuple[str, ...], quick: bool, arms: str | None, out: Path, listed: bool) -> None:
    """Measure the gateway and the architectures it replaces, in turns, on this machine.

    Runs the scenarios named, or those of the full set (some 40 minutes). Writes
    results.json; `python -m loadtests.bench.report` makes the report of it.
    """
    if listed:
        for name in scenario.names():
            declared = scenario.read(name)
            click.echo(f"{name:20} {','.join(declared.sets) or '-':12} {declared.title}")
        return
    if unknown := set(names) - set(scenario.names()):
        raise click.BadParameter(f"no scenario {min(unknown)!r}; --list names them")
    chosen: Set = "quick" if quick else "full"
    scenarios = [scenario.read(name, chosen) for name in names] or scenario.those_of(chosen)
    if arms:
        scenarios = [
            each
            for each in (scenario.only(each, arms.split(",")) for each in scenarios)
            if each.arms
        ]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # which ends what was started, too
    shutil.rmtree(out / "work", ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    began, started = datetime.now(UTC), time.monotonic()
    options = [*names, *(["--quick"] if quick else []), *([f"--arms {arms}"] if arms else [])]
    command = " ".join(["python -m loadtests.bench", *options])
    results.keep(out, command)
    hardware, versions = machine.hardware(), machine.versions()

    def write(bench: Bench) -> None:
        """Write what is there by now: a run that is ended early is not lost."""
        found = results.Results(
            command=command,
            started=began.isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - started),
            machine=hardware,
            versions=versions | bench.versions,
            arms=list(bench.arms.values()),
            agreements=bench.agreements,
            scenarios=list(bench.scenarios.values()),
        )
        results.write(found, out / "results.json")

    try:
        texts = QUICK_TEXTS if quick else TEXTS
        Bench(out, BUILT, lambda text: click.echo(text, err=True), write, texts).run(scenarios)
    except (ServiceError, Disagreement, WrongAnswers, RolloutError, httpx.HTTPError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"written to {out / 'results.json'}", err=True)


if __name__ == "__main__":
    main()
