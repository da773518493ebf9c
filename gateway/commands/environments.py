"""`gateway environments`: see and collect the isolated environments of a host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gateway.commands.options import options, settings
from gateway.preprocessing.environments import Environments, digest
from gateway.releases import lock
from gateway.settings import Settings


@click.group()
def environments() -> None:
    """See and collect the isolated environments of the preprocessors."""


@environments.command("list")
@options("repository", "environments")
def show(**given: Any) -> None:
    """List the environments that are built, with the releases that use them."""
    config = settings(given)
    used = _used(config)
    for name in _environments(config).built():
        size = _size(config.environments / name)
        click.echo(f"{name}  {size / 1e6:6.0f} MB  {', '.join(used.get(name, ['unused']))}")


@environments.command()
@options("repository", "environments")
def gc(**given: Any) -> None:
    """Remove the environments that no lock of the repository names."""
    config = settings(given)
    for name in _environments(config).collect(_used(config).keys()):
        click.echo(f"removed {name}")


def _environments(config: Settings) -> Environments:
    return Environments(config.environments, config.wheelhouse, offline=config.offline)


def _used(config: Settings) -> dict[str, list[str]]:
    """Return which releases use each environment, by its digest. Raises ClickException."""
    used: dict[str, list[str]] = {}
    if not config.repository.is_dir():  # else everything would seem unused
        raise click.ClickException(f"{config.repository}: the model repository does not exist")
    for path in sorted(config.repository.glob(f"*/{lock.FILE}")):
        try:
            found = lock.read(path.parent)
        except lock.LockError as error:
            raise click.ClickException(str(error)) from None
        for name, release in found.releases.items() if found else ():
            used.setdefault(digest(release.requirements), []).append(f"{path.parent.name}/{name}")
    return used


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*"))
