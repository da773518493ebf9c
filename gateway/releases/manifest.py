"""`releases.toml`: which releases of a model are declared, and how traffic is split over them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

FILE = "releases.toml"

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Count = Annotated[int, msgspec.Meta(ge=1)]


class ManifestError(ValueError):
    """A `releases.toml` that cannot be served; the message names file and key."""


class Batching(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds of a release's lane: rows per call to Triton, and calls in flight.

    0 in-flight calls stands for one more than the instances that Triton runs.
    """

    max_rows: Count = 8
    max_calls: Annotated[int, msgspec.Meta(ge=0)] = 0


class Release(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One release as declared: a model version and the preprocessor that belongs to it."""

    model_version: Count
    preprocessor: Annotated[str, msgspec.Meta(min_length=1)]
    batching: Batching = Batching()


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All releases of one model. `traffic` maps release names to weights (any positive sum)."""

    releases: dict[Name, Release]
    traffic: dict[Name, Annotated[int, msgspec.Meta(ge=0)]]


def read(repository: Path, models: tuple[str, ...] = ()) -> dict[str, Manifest]:
    """Read the manifest of every model folder that has one, by model name, sorted.

    `models` restricts it to those names. Raises ManifestError for an unreadable or
    contradictory file, a missing repository, or a name in `models` that declares no release.
    """
    if not repository.is_dir():
        raise ManifestError(f"{repository}: the model repository does not exist")
    found = {
        path.parent.name: _manifest(path)
        for path in sorted(repository.glob(f"*/{FILE}"))
        if not models or path.parent.name in models
    }
    if missing := sorted(set(models) - found.keys()):
        raise ManifestError(f"{repository}: no {FILE} for {', '.join(missing)}")
    return found


def _manifest(path: Path) -> Manifest:
    try:
        manifest = msgspec.toml.decode(path.read_bytes(), type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: {error}") from None
    if not manifest.releases:
        raise ManifestError(f"{path}: [releases] declares none")
    if unknown := sorted(manifest.traffic.keys() - manifest.releases.keys()):
        raise ManifestError(f"{path}: traffic.{unknown[0]}: no such release is declared")
    if not any(manifest.traffic.values()):
        raise ManifestError(f"{path}: [traffic] gives no release a positive weight")
    return manifest
