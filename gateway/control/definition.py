"""A release as declared and as locked."""

from __future__ import annotations

from typing import NamedTuple

from gateway.releases.lock import LockedRelease
from gateway.releases.manifest import Release
from gateway.triton.model_control import ModelVersion


class Definition(NamedTuple):
    """A release as declared and as locked (None: not locked); equal definitions are one release."""

    model: str
    name: str
    release: Release
    locked: LockedRelease | None

    @property
    def version(self) -> ModelVersion:
        """The model version in Triton."""
        return ModelVersion(self.model, self.release.model_version)

    def replaces_files_of(self, other: Definition) -> bool:
        """Whether this is the same preprocessor and version number, locked with other files."""
        new, old = self.locked, other.locked
        return (
            self.version == other.version
            and self.release.isolation == other.release.isolation
            and new is not None
            and old is not None
            and (new.requirements, new.contract) == (old.requirements, old.contract)
            and new.model != old.model
        )
