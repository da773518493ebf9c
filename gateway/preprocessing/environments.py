"""Isolated environments: one venv per distinct set of locked requirements, built by uv.

Cached by digest and shared by all releases with equal locks. A build happens in a temporary folder
that is renamed into place when complete, so that a killed build leaves nothing half-done in use.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

import structlog
from uv import find_uv_bin

from gateway.preprocessing import wheelhouse as wheels
from gateway.system.files import waiting

log = structlog.get_logger(__name__)

#: Give up on building an environment after this many seconds.
BUILD_SECONDS = 900
BUILDING = ".building-"
#: Held while building or removing, by one process at a time per host.
LOCK = ".lock"
REQUIREMENTS = "requirements.txt"
PYTHON = "bin/python"


class EnvironmentFailure(RuntimeError):
    """An environment could not be built; the message has uv's output or the missing wheels."""


class Environments:
    """The environments of a host, under `root`.

    `wheelhouse` holds wheels that no index has; `offline` forbids indexes. `prebuilt` is a folder
    of environments that is searched first and never written.
    """

    def __init__(
        self,
        root: Path,
        wheelhouse: Path,
        *,
        offline: bool = False,
        prebuilt: Path | None = None,
    ) -> None:
        self._root = root.absolute()
        self._wheelhouse = wheelhouse.absolute()
        self._offline = offline
        self._prebuilt = prebuilt.absolute() if prebuilt else None

    async def python(self, requirements: Sequence[str]) -> Path:
        """Return the interpreter of the environment with exactly these pinned requirements.

        Builds it if necessary. Raises EnvironmentFailure.
        """
        name = digest(requirements)
        # An image may have its interpreter elsewhere than the builder: then build another.
        if self._prebuilt and os.access(python := self._prebuilt / name / PYTHON, os.X_OK):
            return python
        folder = self._root / name
        if not folder.exists():
            try:
                await asyncio.to_thread(self._build_once, folder, requirements)
            except OSError as error:
                raise EnvironmentFailure(f"cannot build in {self._root}: {error}") from None
        return folder / PYTHON

    def collect(self, used: Collection[str]) -> list[str]:
        """Remove every environment whose digest is not in `used`; return what was removed.

        Waits for builds in progress, and also removes what killed builds left behind.
        """
        if not self._root.exists():
            return []
        with waiting(self._root / LOCK):
            removed = [name for name in self._folders() if name not in used]
            for name in removed:
                # Renamed first: a half-removed environment must not look complete.
                shutil.rmtree((self._root / name).rename(self._root / f"{BUILDING}{name}"))
        return removed

    def built(self) -> list[str]:
        """Return the digests of all complete environments except prebuilt ones."""
        return [name for name in self._folders() if not name.startswith(BUILDING)]

    def prebuilt(self) -> list[str]:
        """Return the digests of the prebuilt environments."""
        if not self._prebuilt or not self._prebuilt.is_dir():
            return []
        return sorted(path.parents[1].name for path in self._prebuilt.glob(f"[!.]*/{PYTHON}"))

    def _folders(self) -> list[str]:
        folders = self._root.iterdir() if self._root.exists() else ()
        return sorted(folder.name for folder in folders if folder.is_dir())

    def _build_once(self, folder: Path, requirements: Sequence[str]) -> None:
        if not self._root.exists():
            self._root.mkdir(parents=True, exist_ok=True)
            self._root.chmod(0o755)
        with waiting(self._root / LOCK):
            if folder.exists():  # another process was faster
                return
            building = Path(tempfile.mkdtemp(prefix=BUILDING, dir=self._root))
            try:
                self._build(building, requirements)
                _open_to_all(building)
                building.rename(folder)
            finally:
                shutil.rmtree(building, ignore_errors=True)

    def _build(self, folder: Path, requirements: Sequence[str]) -> None:
        log.info("building an environment", requirements=requirements[:1])
        self._wheelhouse.mkdir(parents=True, exist_ok=True)  # uv rejects a missing one
        (folder / REQUIREMENTS).write_text("\n".join(requirements) + "\n")
        run_uv("venv", "--allow-existing", "--relocatable", "--python", sys.executable, folder)
        offline = ("--offline", "--no-index") if self._offline else ()
        try:
            run_uv(
                *("pip", "install", "--python", folder / PYTHON, "--require-hashes", "--no-deps"),
                # Copies, not links into uv's cache, which an edit of an environment would change.
                *("--compile-bytecode", "--link-mode", "copy", "--only-binary", ":all:"),
                *("--find-links", self._wheelhouse, *offline),
                *("--requirements", folder / REQUIREMENTS),
            )
        except EnvironmentFailure:
            lacking = wheels.missing(self._wheelhouse, requirements) if self._offline else []
            if not lacking:
                raise
            raise EnvironmentFailure(
                f"offline is set and the wheelhouse {self._wheelhouse} lacks {', '.join(lacking)}:"
                f" run `{wheels.COMPLETE}` on a host with a network, and copy the wheelhouse here"
            ) from None


def digest(requirements: Sequence[str]) -> str:
    """Return the name of these requirements' environment on this kind of machine and Python."""
    machine = (*platform.python_version_tuple()[:2], platform.machine(), *platform.libc_ver())
    return hashlib.sha256("\n".join((*machine, *requirements)).encode()).hexdigest()[:24]


def run_uv(*arguments: str | Path, **variables: str) -> str:
    """Run uv, with these additional environment variables, and return its output.

    Raises EnvironmentFailure with the end of its error output.
    """
    command = [find_uv_bin(), "--no-progress", "--color", "never", *map(str, arguments)]
    quiet = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    if not _cache_is_writable():  # uv would not start; without a cache it uses a temporary folder
        quiet["UV_NO_CACHE"] = "1"
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
        raise EnvironmentFailure(
            f"uv {arguments[0]}: not finished after {BUILD_SECONDS} s"
        ) from None
    if done.returncode:
        words = [line for line in done.stderr.splitlines() if not line.startswith("Using Python")]
        raise EnvironmentFailure("\n".join(words[-8:]).strip())
    return done.stdout


def _cache_is_writable() -> bool:
    """Return whether uv can write its cache: a container's user may have no home."""
    try:
        shared = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # neither HOME nor an entry in the password file
        shared = Path("/nonexistent")
    place = Path(os.environ.get("UV_CACHE_DIR") or shared / "uv").absolute()
    nearest = next(path for path in (place, *place.parents) if os.access(path, os.F_OK))
    return os.access(nearest, os.W_OK | os.X_OK)


def _open_to_all(root: Path) -> None:
    """Let every user read and execute what the builder can; only the builder may write."""
    for folder, _, files in os.walk(root):
        for path in (Path(folder), *(Path(folder, file) for file in files)):
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                continue
            readable = 0o055 if mode & stat.S_IXUSR else 0o044
            path.chmod((stat.S_IMODE(mode) | readable) & ~0o022)
