"""Breaks a running gateway under load, fault by fault, and overloads it; writes a report.

`make chaos` runs everything, in a quarter of an hour.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

import click

from loadtests.chaos import report
from loadtests.chaos.faults import FAULTS
from loadtests.chaos.overload import Options, Overload, measure
from loadtests.chaos.trial import FAKETIME, Trial, attempt
from loadtests.load import machine
from loadtests.load.service import ROOT
from loadtests.load.stack import Stack

OUT = Path(".run/chaos/report.md")
OVERLOADS = {
    "batches": Options(rows=8),
    "singles": Options(),
    "fresh": Options(rows=8, fresh=True),
    "obedient": Options(rows=8, factor=3, obedient=True),
}


@click.command(help=__doc__)
@click.option(
    "--fault", "faults", multiple=True, type=click.Choice(list(FAULTS)), help="only these"
)
@click.option(
    "--overload", "overloads", multiple=True, type=click.Choice(list(OVERLOADS)), help="only it"
)
@click.option("--seconds", default=60.0, show_default=True, help="length of each overload")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=ROOT / ".run/chaos/report.md",
    show_default=True,
)
def main(faults: tuple[str, ...], overloads: tuple[str, ...], seconds: float, out: Path) -> None:
    """Run, print and write the report; exits with 1 if the gateway did not survive a fault."""
    everything = not faults and not overloads
    names = [name for name in (FAULTS if everything else faults) if _possible(name)]
    trials = [_attempt(name) for name in names]
    measured = [_measure(name, seconds) for name in (OVERLOADS if everything else overloads)]
    text = report.page(machine.hardware(), measured, trials)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    click.echo(f"\n{text}\nwritten to {out}")
    sys.exit(any(trial.failures for trial in trials))


def _possible(name: str) -> bool:
    """Say why a fault cannot be brought about here, if so."""
    if FAULTS[name].fakes_time and not FAKETIME.exists():
        click.echo(f"{name}: left out, as libfaketime is not installed")
        return False
    if FAULTS[name].small and os.geteuid():
        click.echo(f"{name}: left out, as only root can mount a small disk")
        return False
    return True


def _attempt(name: str) -> Trial:
    click.echo(f"{name} …", nl=False)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        trial = asyncio.run(attempt(FAULTS[name], Path(folder)))
    click.echo(f" {'; '.join(trial.failures) or 'as it should be'}")
    return trial


def _measure(name: str, seconds: float) -> Overload:
    click.echo(f"overload: {name} …", nl=False)
    variables = {"GATEWAY_MODELS": "minilm,tumor"}
    with (
        tempfile.TemporaryDirectory(prefix="chaos-") as folder,
        Stack(Path(folder), ROOT / "model_repository", variables) as stack,
    ):
        measured = asyncio.run(measure(stack, OVERLOADS[name]._replace(seconds=seconds)))
    click.echo(f" {measured.goodput / measured.capacity:.2f} of the capacity")
    return measured


if __name__ == "__main__":
    main()
