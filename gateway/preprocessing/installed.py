"""Finds a preprocessor among the installed distributions of this interpreter."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from gateway_preprocessor import ENTRY_POINT_GROUP, ContractViolation, Preprocessor, Runner
from packaging.requirements import InvalidRequirement, Requirement


class PreprocessorUnavailable(RuntimeError):
    """The required preprocessor is not installed, or breaks the contract."""


def load(requirement: str) -> tuple[str, Runner]:
    """Import and build the preprocessor that `requirement` (PEP 508) names.

    Returns what was found, as `name==version`, and its runner.

    Raises PreprocessorUnavailable when the requirement is malformed, not satisfied here, or
    names a distribution without exactly one working entry point in `gateway.preprocessors`.
    """
    try:
        wanted = Requirement(requirement)
    except InvalidRequirement as error:
        raise PreprocessorUnavailable(f"preprocessor {requirement!r}: {error}") from None
    try:
        distribution = metadata.distribution(wanted.name)
    except metadata.PackageNotFoundError:
        raise PreprocessorUnavailable(f"preprocessor {wanted.name} is not installed") from None
    if not wanted.specifier.contains(distribution.version, prereleases=True):
        raise PreprocessorUnavailable(
            f"preprocessor {requirement} is required, {distribution.version} is installed"
        )
    found = distribution.entry_points.select(group=ENTRY_POINT_GROUP)
    if len(found) != 1:
        raise PreprocessorUnavailable(
            f"{wanted.name} has {len(found)} entry points in {ENTRY_POINT_GROUP}, not one"
        )
    try:
        runner = Runner(_instance(next(iter(found)).load()))
    except Exception as error:
        raise PreprocessorUnavailable(
            f"preprocessor {requirement} does not start: {error}"
        ) from error
    return f"{wanted.name}=={distribution.version}", runner


def _instance(factory: Any) -> Preprocessor[Any, Any, Any]:
    if not (isinstance(factory, type) and issubclass(factory, Preprocessor)):
        raise ContractViolation(f"{factory!r} is no Preprocessor class")
    return factory()
