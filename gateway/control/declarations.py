"""Reads what every model declares. A model that cannot be read affects no other."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from gateway.releases import lock, manifest
from gateway.releases.lock import Lock, LockError
from gateway.releases.manifest import Manifest, ManifestError


class Declaration(NamedTuple):
    """What one model's files declare and lock; `problem` says why they cannot be read.

    In that case `manifest` and `lock` are those read last, if any.
    """

    manifest: Manifest | None = None
    lock: Lock | None = None
    problem: str = ""


def read(
    repository: Path, models: tuple[str, ...], before: dict[str, Declaration]
) -> dict[str, Declaration]:
    """Read all declarations, by model. Raises ManifestError if the repository does not exist."""
    found = {}
    for model, declared in manifest.read_each(repository, models).items():
        known = before.get(model, Declaration())
        if isinstance(declared, ManifestError):
            found[model] = known._replace(problem=str(declared))
            continue
        try:
            found[model] = Declaration(declared, lock.read(repository / model))
        except LockError as error:
            found[model] = known._replace(problem=str(error))
    return found
