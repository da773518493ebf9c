"""`gateway wheels`: build the preprocessors' wheels."""

from __future__ import annotations

from typing import Any

import click

from gateway.building.custody import Custody
from gateway.building.wheels import build
from gateway.commands.options import options, settings
from gateway.preprocessing.environments import EnvironmentFailure
from gateway.releases.lock import LockError


@click.command()
@options("repository", "preprocessors", "wheelhouse", "offline")
def wheels(**given: Any) -> None:
    """Build a wheel of every preprocessor whose sources changed.

    A wheel that a lock of the repository names is never replaced: raise the package's version.
    """
    chosen = settings(given)
    try:
        built = build(
            *(chosen.preprocessors, chosen.wheelhouse, Custody(chosen.repository), click.echo),
            offline=chosen.offline,
        )
    except (EnvironmentFailure, LockError, OSError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{len(built)} wheels in {chosen.wheelhouse}")
