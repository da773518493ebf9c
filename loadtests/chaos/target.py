"""The gateway that is broken, with everything a fault needs to find: processes, files, state."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil

from loadtests.load.stack import Stack

#: Seconds between two looks at /readyz.
LOOK = 0.1


class Look(NamedTuple):
    """What /readyz said at a moment (`time.perf_counter`); status 0: no answer."""

    at: float
    status: int
    state: str
    problems: dict[str, str]

    @property
    def well(self) -> bool:
        """Whether nothing is dead."""
        return self.status == httpx.codes.OK and self.state == "ready"


class Target:
    """A running stack over a repository of its own, in `folder`."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.stack = stack
        self.folder = folder
        self.looks: list[Look] = []

    @property
    def repository(self) -> Path:
        """Its model repository."""
        return self.folder / "repository"

    @property
    def run_dir(self) -> Path:
        """Its working folder."""
        return self.folder / "run"

    @property
    def clock(self) -> Path:
        """The file from which libfaketime reads how wrong the time of day is."""
        return self.folder / "clock"

    def processes(self, group: str, *, part: str = "") -> list[psutil.Process]:
        """Return its processes of a group; with `part`, those whose command line has it."""
        found = self.stack.service.processes().get(group, [])
        return [each for each in found if part in _command(each)]

    def gateways(self) -> list[psutil.Process]:
        """Return the gateway processes that serve; not the parent of several."""
        found = self.processes("gateway")
        return found[1:] if len(found) > 1 else found

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Look at /readyz while the block runs."""
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching

    async def until(self, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        """Wait for a condition. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(LOOK)

    async def _watch(self) -> None:
        async with httpx.AsyncClient(base_url=self.stack.url, timeout=2.0) as client:
            while True:
                now = time.perf_counter()
                self.looks.append(await _look(client, now))
                await asyncio.sleep(LOOK)


async def _look(client: httpx.AsyncClient, now: float) -> Look:
    try:
        answer = await client.get("/readyz")
        told: dict[str, Any] = answer.json()
    except (httpx.TransportError, ValueError):
        return Look(now, 0, "", {})
    return Look(now, answer.status_code, told.get("status", ""), told.get("problems", {}))


def _command(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return " ".join(process.cmdline())
    return ""


@asynccontextmanager
async def paused(process: psutil.Process) -> AsyncIterator[None]:
    """Stop a process while the block runs, unless it has been replaced by then."""
    process.suspend()
    try:
        yield
    finally:
        with suppress(psutil.NoSuchProcess):
            process.resume()


def kill(process: psutil.Process) -> None:
    """Kill one process, which may have ended."""
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)


@asynccontextmanager
async def small_disk(folder: Path, size: int) -> AsyncIterator[None]:
    """Mount a file system of `size` bytes on a folder. Raises CalledProcessError."""
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240
    mount = shutil.which("mount") or "mount"
    options = ["-t", "tmpfs", "-o", f"size={size}", "chaos", str(folder)]
    subprocess.run([mount, *options], check=True, capture_output=True)  # noqa: ASYNC221, S603
    try:
        yield
    finally:
        umount = shutil.which("umount") or "umount"
        subprocess.run([umount, "--lazy", str(folder)], check=False)  # noqa: ASYNC221, S603
