"""Resolves a preprocessor's requirement to pinned ones with hashes."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from gateway.building.custody import LockedWheel
from gateway.building.wheels import Wheel
from gateway.preprocessing.environments import run_uv
from gateway.releases import lock
from gateway.releases.lock import LockError, Pin
from gateway.settings import Settings

#: The oldest Python that a lock must support; newer ones use the same versions if possible.
PYTHON = "3.11"


class Own(NamedTuple):
    """The repository's packages: the wheels of its present sources, and earlier locked ones."""

    present: Sequence[Wheel]
    locked: Sequence[LockedWheel]

    def fitting(self, wanted: Requirement) -> list[str]:
        """Return the versions that fit, the best one first: of the sources, then locked ones.

        Raises LockError naming the versions that there are, if none fits.
        """
        name = canonicalize_name(wanted.name)
        present = [wheel.version for wheel in self.present if wheel.name == name]
        locked = [wheel for wheel in self.locked if wheel.name == name]
        found = []
        for versions in (present, [wheel.version for wheel in locked]):
            fitting = list(wanted.specifier.filter(versions, prereleases=True))
            found += sorted(fitting, key=Version, reverse=True)
        if present and not found:
            there = [f"the sources have {', '.join(present)}", *map(str, locked)]
            raise LockError(f"no wheel fits {wanted}: {'; locked is '.join(there)}")
        return found

    def digest(self, pin: Pin) -> str | None:
        """Return the digest of a package of the repository; None for any other package.

        Raises LockError if the pinned version is not one of the repository's.
        """
        wheels: list[Wheel | LockedWheel] = [*self.present, *self.locked]
        mine = [wheel for wheel in wheels if wheel.name == pin.name]
        for wheel in mine:
            if wheel.version == pin.version:
                return wheel.digest
        if any(wheel.name == pin.name for wheel in self.present):
            there = ", ".join(sorted({wheel.version for wheel in mine}))
            raise LockError(
                f"{pin.name}=={pin.version} is not one of the repository's versions: {there}"
            )
        return None


def requirement(text: str) -> Requirement:
    """Read a declared requirement. Raises LockError."""
    try:
        return Requirement(text)
    except InvalidRequirement as error:
        raise LockError(f"preprocessor {text!r}: {error}") from None


def resolve(declared: str, pins: Sequence[str], own: Own, settings: Settings) -> list[str]:
    """Resolve a preprocessor's requirement to pinned ones with hashes, one per line.

    `pins` are kept if they fit. The repository's own packages never come from an index: they are
    those of its present sources or, for an earlier version of the preprocessor, locked ones. Raises
    LockError, or EnvironmentFailure with uv's output.
    """
    only = _constraints(requirement(declared), [lock.pin(line) for line in pins], own)
    with tempfile.TemporaryDirectory() as folder:
        wanted, constraints, output = (Path(folder) / name for name in ("in", "only", "out"))
        wanted.write_text(f"{declared}\n")
        constraints.write_text("".join(f"{line}\n" for line in only))
        output.write_text("\n".join(line.partition(" --hash=")[0] for line in pins) + "\n")
        run_uv(
            *("pip", "compile", wanted, "--constraints", constraints, "--output-file", output),
            *("--generate-hashes", "--universal", "--fork-strategy", "fewest"),
            *("--python-version", PYTHON, "--only-binary", ":all:", "--no-config"),
            *("--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"),
            *("--find-links", settings.wheelhouse.absolute()),
            *(("--offline",) if settings.offline else ()),
        )
        lines = output.read_text().replace(" \\\n    ", " ").splitlines()
    return [_own(line, own) for line in lines if line]


def _constraints(wanted: Requirement, pins: Sequence[Pin], own: Own) -> list[str]:
    """Return which versions of the repository's packages may be taken.

    A locked preprocessor that the sources have left behind keeps the packages it was pinned with.
    """
    name = canonicalize_name(wanted.name)
    present = {wheel.version for wheel in own.present if wheel.name == name}
    versions = own.fitting(wanted)
    constraints = [f"{name}=={versions[0]}"] if versions else []
    earlier = bool(versions) and versions[0] not in present
    pinned = {pin.name: pin.version for pin in pins} if earlier else {}
    others = Counter(wheel.name for wheel in own.present if wheel.name != name)
    return constraints + [
        f"{wheel.name}=={pinned.get(wheel.name, wheel.version)}"
        for wheel in own.present
        if others[wheel.name] == 1
    ]


def _own(line: str, own: Own) -> str:
    """Pin a package of the repository to its own wheel; return any other line unchanged."""
    digest = own.digest(lock.pin(line))
    return f"{line.partition(' --hash=')[0]} --hash={digest}" if digest else line
