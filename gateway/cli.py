"""The command line: the commands of `commands/`, and those that other packages add.

A package adds a command through an entry point in the group `gateway.commands`.
"""

from __future__ import annotations

from importlib import metadata
from importlib.metadata import EntryPoint

import click

from gateway.commands.check import check
from gateway.commands.environments import environments
from gateway.commands.lock import lock
from gateway.commands.release import release
from gateway.commands.serve import serve
from gateway.commands.wheels import wheels

GROUP = "gateway.commands"


class Commands(click.Group):
    """Includes the commands of other packages; one that cannot be loaded affects no other."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name all commands (click's hook)."""
        return sorted({*super().list_commands(ctx), *_added()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, or None (click's hook)."""
        own = super().get_command(ctx, cmd_name)
        if own or (point := _added().get(cmd_name)) is None:
            return own
        try:
            command: click.Command = point.load()
        except Exception as error:  # noqa: BLE001 - another package may raise anything
            return _broken(point, error)
        return command


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(metadata.version("triton-release-gateway"))
def main() -> None:
    """A gateway in front of NVIDIA Triton: versioned preprocessing, batching, releases."""


for command in (check, environments, lock, release, serve, wheels):
    main.add_command(command)


def _added() -> dict[str, EntryPoint]:
    return {point.name: point for point in metadata.entry_points(group=GROUP)}


def _broken(point: EntryPoint, error: Exception) -> click.Command:
    """Return a stand-in that reports why the command cannot be loaded."""
    reason = f"cannot be loaded from {point.value}: {type(error).__name__}: {error}"

    anything = {"ignore_unknown_options": True, "allow_extra_args": True}

    @click.command(point.name, help=reason, add_help_option=False, context_settings=anything)
    def broken() -> None:
        raise click.ClickException(f"`gateway {point.name}` {reason}")

    return broken
