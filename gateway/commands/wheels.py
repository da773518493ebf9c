"""`gateway wheels`: build the preprocessors' wheels, and get back those that locks name."""

from __future__ import annotations

from typing import Any

import click

from gateway.building.custody import Custody
from gateway.building.recovery import recover
from gateway.building.wheels import build, turn
from gateway.commands.options import options, settings
from gateway.preprocessing.environments import EnvironmentFailure
from gateway.releases.lock import LockError


@click.command()
@click.option("--locked", is_flag=True, help="also get every wheel that a lock names")
@options("repository", "preprocessors", "wheelhouse", "offline")
def wheels(locked: bool, **given: Any) -> None:
    """Build a wheel of every preprocessor whose sources changed.

    A wheel that a lock of the repository names is never replaced: raise the package's version.
    With --locked, wheels of earlier versions that locks name are built from git's history or
    downloaded from an index; only the locked bytes are accepted.
    """
    chosen = settings(given)
    custody = Custody(chosen.repository)
    where = (chosen.preprocessors, chosen.wheelhouse)
    try:
        with turn(chosen.wheelhouse, click.echo):
            built = build(*where, custody, click.echo, offline=chosen.offline)
            if locked:
                missing = custody.missing(chosen.wheelhouse, {wheel.name for wheel in built})
                recover(missing, *where, click.echo, offline=chosen.offline)
    except (EnvironmentFailure, LockError, OSError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{len(built)} wheels in {chosen.wheelhouse}")
