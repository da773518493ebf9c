"""Custody of wheels: what a lock names is never replaced by other bytes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from gateway.preprocessing.wheelhouse import files
from gateway.releases import lock
from gateway.releases.lock import LockError


class LockedWheel(NamedTuple):
    """A wheel that a lock names, and the releases that need it (`MODEL, release NAME`)."""

    name: str
    version: str
    digest: str
    releases: list[str]

    def __str__(self) -> str:
        return f"{self.name}=={self.version} ({'; '.join(self.releases)})"


class Custody:
    """The wheels that the locks of a repository name, and the releases that need them."""

    def __init__(self, repository: Path) -> None:
        #: For each name and version: the locked digests, each with its releases.
        self._locked: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(dict)
        #: Distributions that are some release's preprocessor: no index need have them.
        self._preprocessors: set[str] = set()
        #: What locks nobody can read name is unknown.
        self._unreadable: list[str] = []
        for path in sorted(repository.glob(f"*/{lock.FILE}")):
            try:
                self._read(path.parent)
            except (LockError, OSError) as error:
                self._unreadable.append(str(error))

    def _read(self, model: Path) -> None:
        found = lock.read(model)
        for name, release in found.releases.items() if found else ():
            self._preprocessors.add(release.preprocessor.partition("==")[0])
            for pin in map(lock.pin, release.requirements):
                for digest in pin.digests:
                    releases = self._locked[pin.name, pin.version].setdefault(digest, [])
                    releases.append(f"{model.name}, release {name}")

    def refusal(self, name: str, version: str, digest: str, wheel: Path) -> str | None:
        """Say why a wheel of this digest may not stand at `wheel`; None if it may."""
        locked = self._locked.get((name, version), {})
        if locked and digest not in locked:
            (wanted, releases), *_ = locked.items()
            return (
                f"its sources changed, but {name}=={version} is locked"
                f" ({'; '.join(releases)}): {lock.differs(digest, wanted)}."
                " Raise its version, or undo the change"
            )
        if not locked and self._unreadable and wheel.exists() and lock.digest_file(wheel) != digest:
            return (
                f"its sources changed, and whether {name}=={version} is locked cannot be told:"
                f" {self._unreadable[0]}"
            )
        return None

    def wheels(self, own: Collection[str]) -> list[LockedWheel]:
        """Return the locked wheels of preprocessors and of packages in `own`."""
        return [
            LockedWheel(name, version, digest, releases)
            for (name, version), digests in sorted(self._locked.items())
            if name in self._preprocessors or name in own
            for digest, releases in digests.items()
        ]

    def missing(self, wheelhouse: Path, own: Collection[str]) -> list[LockedWheel]:
        """Return those of these wheels whose file is not in the wheelhouse."""
        found = {(wheel.name, wheel.version): wheel.path for wheel in files(wheelhouse)}
        return [
            wheel
            for wheel in self.wheels(own)
            if not (path := found.get((wheel.name, wheel.version)))
            or lock.digest_file(path) != wheel.digest
        ]


def lacking(requirements: Sequence[str], missing: Sequence[LockedWheel], wheelhouse: Path) -> str:
    """Say which of a release's wheels are missing, and how to get them; empty if none is."""
    digests = {digest for line in requirements for digest in lock.pin(line).digests}
    named = ", ".join(f"{one.name}=={one.version}" for one in missing if one.digest in digests)
    if not named:
        return ""
    return f"{wheelhouse} lacks the locked wheel of {named}: `gateway wheels --locked` gets it"
