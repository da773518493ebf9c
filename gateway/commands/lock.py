"""`gateway lock`: write and verify `releases.lock`."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from gateway.building.locking import Locking
from gateway.commands.options import options, settings
from gateway.preprocessing.environments import EnvironmentFailure
from gateway.preprocessing.installed import PreprocessorUnavailable
from gateway.releases.lock import LockError
from gateway.releases.manifest import ManifestError
from gateway.telemetry import logs


@click.command()
@click.argument("chosen", metavar="[MODEL]...", nargs=-1)
@click.option("--check", is_flag=True, help="verify only; exit 1 and name what drifted")
@click.option(
    "--relock", metavar="RELEASE", multiple=True, help="lock this one again, though it is locked"
)
@click.option("--upgrade", is_flag=True, help="resolve new locks without regard of earlier pins")
@options("repository", "preprocessors", "wheelhouse", "environments", "offline")
def lock(
    chosen: tuple[str, ...], check: bool, relock: tuple[str, ...], upgrade: bool, **given: Any
) -> None:
    """Lock every declared release that is not locked yet, and verify those that are.

    A locked release is immutable: whatever differs is named, and nothing of it is written.
    """
    if check and (relock or upgrade):
        raise click.UsageError(
            "--check writes nothing: neither --relock nor --upgrade goes with it"
        )
    config = settings({**given, "log_level": "error"})
    logs.configure(config)
    try:
        locking = Locking(config, click.echo)
        if check:
            problems = asyncio.run(locking.check(chosen))
        else:
            problems = []
            asyncio.run(locking.lock(chosen, relock, upgrade=upgrade))
    except (
        *(LockError, ManifestError, EnvironmentFailure),
        *(PreprocessorUnavailable, OSError),
    ) as error:
        raise click.ClickException(str(error)) from None
    if problems:
        raise click.ClickException("\n".join(["not as locked:", *problems]))
