"""`gateway lock`: write and verify `releases.lock`."""

from __future__ import annotations

from functools import partial
from typing import Any

import click
import uvloop

from gateway.building.locking import Locking
from gateway.building.wheels import turn
from gateway.commands.options import options, settings
from gateway.commands.verdicts import verify
from gateway.preprocessing.environments import EnvironmentFailure
from gateway.preprocessing.installed import PreprocessorUnavailable
from gateway.releases.lock import LockError
from gateway.releases.manifest import ManifestError
from gateway.telemetry import logs


@click.command()
@click.argument("chosen", metavar="[MODEL]...", nargs=-1)
@click.option("--check", is_flag=True, help="only verify; exit with 1 and name what drifted")
@click.option(
    "--relock",
    metavar="RELEASE",
    multiple=True,
    help="lock this release again, or `all`; verified first if it is loaded",
)
@click.option("--upgrade", is_flag=True, help="ignore earlier pins when resolving requirements")
@options("repository", "preprocessors", "wheelhouse", "environments", "offline")
def lock(
    chosen: tuple[str, ...], check: bool, relock: tuple[str, ...], upgrade: bool, **given: Any
) -> None:
    """Lock every declared release that has no lock yet, and verify the others.

    A locked release is immutable: differences are reported, and its lock stays as it is.
    """
    if check and (relock or upgrade):
        raise click.UsageError(
            "--check only verifies: it cannot be combined with --relock or --upgrade"
        )
    config = settings({**given, "log_level": "error"})
    logs.configure(config)
    problems = []
    try:
        with turn(config.wheelhouse, click.echo):
            locking = Locking(config, click.echo, partial(verify, config))
            if check:
                problems = uvloop.run(locking.check(chosen))
            else:
                uvloop.run(locking.lock(chosen, relock, upgrade=upgrade))
    except (
        *(LockError, ManifestError, EnvironmentFailure),
        *(PreprocessorUnavailable, OSError),
    ) as error:
        raise click.ClickException(str(error)) from None
    if problems:
        raise click.ClickException("\n".join(["not as locked:", *problems]))
