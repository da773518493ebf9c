"""What every baseline is started with: the same four options, and a settings file of its own."""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from loadtests.baselines import catalogue

S = TypeVar("S", bound=msgspec.Struct)


class Options(NamedTuple):
    """The command line, models read."""

    models: dict[str, catalogue.Model]
    host: str
    port: int
    settings: Path

    def read(self, form: type[S]) -> S:
        """Read the settings file. Raises msgspec.ValidationError naming the key."""
        return msgspec.convert(tomllib.loads(self.settings.read_text(encoding="utf-8")), form)


def parse(description: str) -> Options:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--models", type=Path, required=True, help="models.json")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--settings", type=Path, required=True, help="TOML")
    given = parser.parse_args()
    return Options(catalogue.read(given.models), given.host, given.port, given.settings)
