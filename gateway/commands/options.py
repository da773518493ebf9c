"""Options of the commands: one per setting, so that the two never part."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from gateway.settings import DEFAULT_FILE, Settings


def options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of these settings; of all where none is named."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for name, field in reversed(Settings.model_fields.items()):
            if names and name not in names:
                continue
            default = (
                "" if field.default in (None, (), PydanticUndefined) else f" [{field.default}]"
            )
            flag, text = f"--{name.replace('_', '-')}", f"{field.description}{default}"
            command = click.option(flag, name, default=None, help=text)(command)
        return command

    return decorate


def settings(given: dict[str, Any]) -> Settings:
    """Return the settings with these options on top. Raises ClickException naming bad keys."""
    file = os.environ.get("GATEWAY_CONFIG")
    if file and not Path(file).is_file():
        raise click.ClickException(f"GATEWAY_CONFIG: {file} does not exist")
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise click.ClickException(_readable(error)) from None
    except tomllib.TOMLDecodeError as error:
        raise click.ClickException(f"{file or DEFAULT_FILE}: {error}") from None


def _readable(error: ValidationError) -> str:
    lines = ["these settings are wrong:"]
    for item in error.errors():
        name = ".".join(str(part) for part in item["loc"])
        lines.append(f"  {name or 'settings'}: {item['msg']}")
    return "\n".join(lines)
