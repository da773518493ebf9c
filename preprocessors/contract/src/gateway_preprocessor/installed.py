"""Finds a preprocessor among the installed distributions of this interpreter."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from gateway_preprocessor.errors import ContractViolation
from gateway_preprocessor.preprocessor import Preprocessor

#: The entry point group under which preprocessors are found.
ENTRY_POINT_GROUP = "gateway.preprocessors"


def find(distribution: str) -> tuple[str, type[Preprocessor[Any, Any, Any]]]:
    """Import the preprocessor of an installed distribution; returns its version and class.

    Raises importlib.metadata.PackageNotFoundError, ContractViolation when the distribution has
    not exactly one entry point that is a preprocessor, and whatever its import raises.
    """
    found = metadata.distribution(distribution)
    points = found.entry_points.select(group=ENTRY_POINT_GROUP)
    if len(points) != 1:
        raise ContractViolation(
            f"{distribution} has {len(points)} entry points in {ENTRY_POINT_GROUP}, not one"
        )
    factory = next(iter(points)).load()
    if not (isinstance(factory, type) and issubclass(factory, Preprocessor)):
        raise ContractViolation(f"{factory!r} is no Preprocessor class")
    return found.version, factory
