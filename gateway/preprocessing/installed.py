"""Runs a preprocessor that is installed in the gateway's own environment."""

from __future__ import annotations

from importlib import metadata

from gateway_preprocessor import Runner, find
from gateway_preprocessor.wire import Identity
from gateway_preprocessor.worker import identity
from packaging.requirements import InvalidRequirement, Requirement


class PreprocessorUnavailable(RuntimeError):
    """The required preprocessor is not installed, does not start or breaks the contract."""


def load(requirement: str) -> tuple[Identity, Runner]:
    """Import and build the preprocessor that `requirement` (PEP 508) names.

    Returns its identity and runner. Raises PreprocessorUnavailable if the requirement is malformed
    or not satisfied here, or the preprocessor does not start.
    """
    try:
        wanted = Requirement(requirement)
        version, factory = find(wanted.name)
    except InvalidRequirement as error:
        raise PreprocessorUnavailable(f"preprocessor {requirement!r}: {error}") from None
    except metadata.PackageNotFoundError:
        raise PreprocessorUnavailable(f"preprocessor {wanted.name} is not installed") from None
    except Exception as error:
        raise PreprocessorUnavailable(f"{requirement} cannot be imported: {error}") from error
    if not wanted.specifier.contains(version, prereleases=True):
        raise PreprocessorUnavailable(f"{requirement} is required, but {version} is installed")
    try:
        return identity(wanted.name, version, factory), Runner(factory())
    except Exception as error:
        raise PreprocessorUnavailable(f"{requirement} does not start: {error}") from error
