"""Isolated environments: one venv per distinct set of locked requirements, built by uv.

Cached by digest and shared by all releases with equal locks. A build happens in a folder of its
own that is renamed into place when it is whole: a killed build leaves nothing half-used.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import structlog
from uv import find_uv_bin

log = structlog.get_logger(__name__)

#: Seconds that building one environment may take.
BUILD_SECONDS = 900
BUILDING = ".building-"
REQUIREMENTS = "requirements.txt"


class EnvironmentFailure(RuntimeError):
    """An environment could not be built; the message ends with uv's own words."""


class Environments:
    """The environments of a host, under `root`.

    `wheelhouse` holds wheels that no index has; `offline` forbids any index.
    """

    def __init__(self, root: Path, wheelhouse: Path, *, offline: bool = False) -> None:
        self._root = root.absolute()
        self._wheelhouse = wheelhouse.absolute()
        self._offline = offline

    async def python(self, requirements: Sequence[str]) -> Path:
        """Return the interpreter of the environment with exactly these pinned requirements.

        Builds it if need be. Raises EnvironmentFailure.
        """
        folder = self._root / digest(requirements)
        if not folder.exists():
            await asyncio.to_thread(self._build_once, folder, requirements)
        return folder / "bin/python"

    def collect(self, used: Collection[str]) -> list[str]:
        """Remove every environment whose digest is not in `used`; returns what was removed.

        Waits for builds under way; what killed builds left behind goes too.
        """
        if not self._root.exists():
            return []
        with _locked(self._root):
            removed = [name for name in self._folders() if name not in used]
            for name in removed:
                # Renamed first: an environment half removed must not look like a whole one.
                shutil.rmtree((self._root / name).rename(self._root / f"{BUILDING}{name}"))
        return removed

    def built(self) -> list[str]:
        """Return the digests of all environments that are whole."""
        return [name for name in self._folders() if not name.startswith(BUILDING)]

    def _folders(self) -> list[str]:
        folders = self._root.iterdir() if self._root.exists() else ()
        return sorted(folder.name for folder in folders if folder.is_dir())

    def _build_once(self, folder: Path, requirements: Sequence[str]) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        with _locked(self._root):
            if folder.exists():  # another process was faster
                return
            building = Path(tempfile.mkdtemp(prefix=BUILDING, dir=self._root))
            try:
                self._build(building, requirements)
                building.rename(folder)
            finally:
                shutil.rmtree(building, ignore_errors=True)

    def _build(self, folder: Path, requirements: Sequence[str]) -> None:
        log.info("building an environment", requirements=requirements[:1])
        self._wheelhouse.mkdir(parents=True, exist_ok=True)  # uv refuses a missing one
        (folder / REQUIREMENTS).write_text("\n".join(requirements) + "\n")
        run_uv("venv", "--allow-existing", "--relocatable", "--python", sys.executable, folder)
        offline = ("--offline", "--no-index") if self._offline else ()
        run_uv(
            *("pip", "install", "--python", folder / "bin/python", "--require-hashes", "--no-deps"),
            # Copies, not links into the cache of uv: who edits one environment edits only that one.
            *("--compile-bytecode", "--link-mode", "copy", "--only-binary", ":all:"),
            *("--find-links", self._wheelhouse, *offline),
            *("--requirements", folder / REQUIREMENTS),
        )


def digest(requirements: Sequence[str]) -> str:
    """Name the environment of these requirements on this kind of machine and Python."""
    machine = (*platform.python_version_tuple()[:2], platform.machine(), *platform.libc_ver())
    return hashlib.sha256("\n".join((*machine, *requirements)).encode()).hexdigest()[:24]


def run_uv(*arguments: str | Path, **variables: str) -> str:
    """Run uv, with these environment variables too, and return what it printed.

    Raises EnvironmentFailure with its last words.
    """
    command = [find_uv_bin(), "--no-progress", "--color", "never", *map(str, arguments)]
    quiet = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    try:
        done = subprocess.run(  # noqa: S603
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=BUILD_SECONDS,
            env=quiet | variables,
        )
    except subprocess.TimeoutExpired:
        raise EnvironmentFailure(f"uv {arguments[0]}: not done in {BUILD_SECONDS} s") from None
    if done.returncode:
        words = [line for line in done.stderr.splitlines() if not line.startswith("Using Python")]
        raise EnvironmentFailure("\n".join(words[-8:]).strip())
    return done.stdout


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Hold the one lock of all builders of a host."""
    with (root / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
