"""`gateway environments`: list, prebuild and clean up the preprocessors' environments."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from gateway.commands.options import options, settings
from gateway.preprocessing import wheelhouse
from gateway.preprocessing.environments import EnvironmentFailure, Environments, digest
from gateway.preprocessing.wheelhouse import DownloadFailure
from gateway.releases import lock
from gateway.settings import Settings
from gateway.telemetry import logs


class Wanted(NamedTuple):
    """An environment named by locks: its requirements, and the releases that use it."""

    requirements: Sequence[str]
    releases: list[str]


@click.group()
def environments() -> None:
    """List, prebuild and clean up the preprocessors' environments."""


@environments.command("list")
@options("repository", "environments", "prebuilt_environments")
def show(**given: Any) -> None:
    """List the built environments and the releases that use them."""
    config = settings(given)
    wanted = _wanted(config)
    found = _environments(config)
    rows = [(config.environments / name, "") for name in found.built()]
    if config.prebuilt_environments:
        rows = [
            *((config.prebuilt_environments / name, "prebuilt: ") for name in found.prebuilt()),
            *rows,
        ]
    for folder, kind in rows:
        users = wanted[folder.name].releases if folder.name in wanted else ["unused"]
        click.echo(f"{folder.name}  {_size(folder) / 1e6:6.0f} MB  {kind}{', '.join(users)}")


@environments.command()
@click.argument("models", metavar="[MODEL]...", nargs=-1)
@click.option(
    "--complete-wheelhouse",
    is_flag=True,
    help="first download every locked wheel into the wheelhouse, for builds with `offline`",
)
@options("repository", "wheelhouse", "environments", "prebuilt_environments", "offline")
def build(models: tuple[str, ...], complete_wheelhouse: bool, **given: Any) -> None:
    """Build every environment that the locks name, before a gateway needs it.

    Needs the locks and the wheelhouse, but neither Triton nor the preprocessors' sources. Tries
    all environments; exits with 1 if any could not be built, and names them.
    """
    config = settings({**given, "log_level": "error"})
    logs.configure(config)
    if complete_wheelhouse and config.offline:
        raise click.UsageError(
            "--complete-wheelhouse downloads from an index, which `offline` forbids"
        )
    problems = []
    for name, wanted in _wanted(config, models).items():
        users = ", ".join(wanted.releases)
        try:
            if complete_wheelhouse:
                _complete(config, wanted)
            click.echo(f"{name}  {_build(config, wanted)}  {users}")
        except (EnvironmentFailure, DownloadFailure, OSError) as error:
            problems.append(f"{name}  {users}: {error}")
    if problems:
        raise click.ClickException("\n".join(["not built:", *problems]))


@environments.command()
@options("repository", "environments")
def gc(**given: Any) -> None:
    """Remove environments that no lock in the repository names, except prebuilt ones."""
    config = settings(given)
    for name in _environments(config).collect(_wanted(config).keys()):
        click.echo(f"removed {name}")


def _environments(config: Settings) -> Environments:
    return Environments(
        config.environments,
        config.wheelhouse,
        offline=config.offline,
        prebuilt=config.prebuilt_environments,
    )


def _complete(config: Settings, wanted: Wanted) -> None:
    for name in wheelhouse.complete(config.wheelhouse, wanted.requirements):
        click.echo(f"added {name}")


def _build(config: Settings, wanted: Wanted) -> str:
    """Build an environment unless it exists; return how long it took, as text."""
    found = _environments(config)
    before = {*found.built(), *found.prebuilt()}
    start = time.monotonic()
    asyncio.run(found.python(wanted.requirements))
    there = digest(wanted.requirements) in before
    return "already there" if there else f"{time.monotonic() - start:.1f} s"


def _wanted(config: Settings, models: Sequence[str] = ()) -> dict[str, Wanted]:
    """Return the environments that these models' locks name, by digest; no models means all.

    Raises ClickException.
    """
    if not config.repository.is_dir():  # otherwise every environment would look unused
        raise click.ClickException(f"{config.repository}: the model repository does not exist")
    folders = [config.repository / model for model in models]
    if not models:
        folders = sorted(path.parent for path in config.repository.glob(f"*/{lock.FILE}"))
    wanted: dict[str, Wanted] = {}
    for folder in folders:
        for name, release in _locked(folder).releases.items():
            key = digest(release.requirements)
            entry = wanted.setdefault(key, Wanted(release.requirements, []))
            entry.releases.append(f"{folder.name}/{name}")
    return wanted


def _locked(folder: Path) -> lock.Lock:
    try:
        found = lock.read(folder)
    except lock.LockError as error:
        raise click.ClickException(str(error)) from None
    if found is None:
        raise click.ClickException(f"{folder / lock.FILE} does not exist: run `gateway lock`")
    return found


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*"))
