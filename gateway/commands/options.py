"""Options of the commands, generated from the settings."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from gateway.settings import DEFAULT_FILE, Settings

#: Option types of settings that are not text.
KINDS: dict[Any, click.ParamType[Any]] = {
    bool: click.BOOL,
    int: click.INT,
    float: click.FLOAT,
    Path: click.Path(path_type=Path),
    Path | None: click.Path(path_type=Path),
}


def options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the options of these settings to a command; without names, of all settings."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for name, field in reversed(Settings.model_fields.items()):
            if not names or name in names:
                command = _option(name, field)(command)
        return command

    return decorate


def _option(name: str, field: FieldInfo) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make the option of one setting; pydantic checks the bounds later."""
    flag, default = f"--{name.replace('_', '-')}", field.default
    if field.annotation is bool:
        flag = f"{flag}/--no-{flag[2:]}"
    if get_origin(field.annotation) is Literal:
        kind: click.ParamType[Any] = click.Choice(get_args(field.annotation))
    else:
        kind = KINDS.get(field.annotation, click.STRING)
    shown = "" if default in (None, (), False, PydanticUndefined) else f"  [{default}]"
    return click.option(flag, name, default=None, type=kind, help=f"{field.description}{shown}")


def settings(given: dict[str, Any]) -> Settings:
    """Return the settings, overridden by these options. Raises ClickException naming bad keys."""
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
    lines = ["invalid settings:"]
    for item in error.errors():
        name = ".".join(str(part) for part in item["loc"])
        lines.append(f"  {name or 'settings'}: {item['msg'].removeprefix('Value error, ')}")
    return "\n".join(lines)
