"""Custody of wheels: what a lock names is never replaced by other bytes."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from gateway.releases import lock
from gateway.releases.lock import LockError


class Custody:
    """The wheels that the locks of a repository name, and the releases that need them."""

    def __init__(self, repository: Path) -> None:
        #: For each name and version: the locked digests, each with its releases.
        self._locked: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(dict)
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
