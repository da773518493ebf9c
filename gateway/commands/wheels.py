"""`gateway wheels`: build the preprocessors' wheels."""

from __future__ import annotations

from typing import Any

import click

from gateway.building.wheels import build
from gateway.commands.options import options, settings
from gateway.preprocessing.environments import EnvironmentFailure
from gateway.releases.lock import LockError


@click.command()
@options("preprocessors", "wheelhouse", "offline")
def wheels(**given: Any) -> None:
    """Build a wheel of every preprocessor whose sources changed."""
    chosen = settings(given)
    try:
        built = build(chosen.preprocessors, chosen.wheelhouse, click.echo, offline=chosen.offline)
    except (EnvironmentFailure, LockError, OSError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{len(built)} wheels in {chosen.wheelhouse}")
