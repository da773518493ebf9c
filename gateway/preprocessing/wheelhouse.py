"""The wheelhouse: finds and downloads the locked wheels that it lacks.

`gateway wheels` puts the repository's own wheels there; their dependencies come from an index.
"""

from __future__ import annotations

import filecmp
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.tags import Tag, sys_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

#: Give up on downloading an environment's wheels after this many seconds.
DOWNLOAD_SECONDS = 900
COMPLETE = "gateway environments build --complete-wheelhouse"


class DownloadFailure(RuntimeError):
    """A locked wheel could not be downloaded; the message ends with pip's output."""


class WheelFile(NamedTuple):
    """A file of the wheelhouse and what its name says: canonical name, version and tags."""

    path: Path
    name: str
    version: str
    tags: frozenset[Tag]


def files(wheelhouse: Path) -> Iterator[WheelFile]:
    """Yield the wheels of a wheelhouse; files without a wheel's name are none."""
    for path in wheelhouse.glob("*.whl"):
        try:
            name, version, _, tags = parse_wheel_filename(path.name)
        except InvalidWheelFilename:
            continue
        yield WheelFile(path, name, str(version), tags)


def missing(wheelhouse: Path, requirements: Sequence[str]) -> list[str]:
    """Return the locked `name==version` that lack a wheel for this Python and machine."""
    here = set(sys_tags())
    found = {
        (wheel.name, wheel.version)
        for wheel in files(wheelhouse)
        if not here.isdisjoint(wheel.tags)
    }
    wanted = [Requirement(line.partition(" --hash=")[0]) for line in requirements]
    return [
        f"{item.name}{item.specifier}"
        for item in wanted
        if (item.marker is None or item.marker.evaluate())
        and not any(
            name == canonicalize_name(item.name) and item.specifier.contains(version)
            for name, version in found
        )
    ]


def complete(wheelhouse: Path, requirements: Sequence[str]) -> list[str]:
    """Download every locked wheel for this Python and machine; return the new files' names.

    Uses pip, since uv cannot download, and verifies the hashes. Raises DownloadFailure.
    """
    wheelhouse.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=wheelhouse) as folder:
        locked, downloaded = Path(folder) / "requirements.txt", Path(folder) / "wheels"
        locked.write_text("\n".join(requirements) + "\n")
        downloaded.mkdir()
        _pip(
            *("download", "--quiet", "--no-input", "--disable-pip-version-check"),
            *("--require-hashes", "--no-deps", "--only-binary", ":all:"),
            *("--dest", downloaded, "--find-links", wheelhouse.absolute()),
            *("--requirement", locked),
        )
        return [path.name for path in sorted(downloaded.iterdir()) if _add(path, wheelhouse)]


def _add(wheel: Path, wheelhouse: Path) -> bool:
    """Move a wheel there atomically; return whether it is new. Raises DownloadFailure."""
    target = wheelhouse / wheel.name
    if not target.exists():
        wheel.chmod(0o644)
        wheel.rename(target)
        return True
    if not filecmp.cmp(wheel, target, shallow=False):
        raise DownloadFailure(f"{target} is not the locked wheel of that name: remove it first")
    return False


def _pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", *map(str, arguments)]
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, check=False, timeout=DOWNLOAD_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise DownloadFailure(f"pip download: not finished after {DOWNLOAD_SECONDS} s") from None
    if "No module named pip" in done.stderr:
        raise DownloadFailure(
            f"{sys.executable} has no pip, which downloads the wheels: install pip into its"
            " environment, or complete the wheelhouse on another host with this Python and machine"
        )
    if done.returncode:
        raise DownloadFailure("\n".join(done.stderr.splitlines()[-8:]).strip())
