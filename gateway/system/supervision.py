"""Keeps a child process running: restarts it with back-off, gives up if told to, reports its state.

Nothing that goes wrong on the way (a log that cannot be opened, a fork that fails) ends it: it
counts as a failed start, is logged, and is tried again.
"""

from __future__ import annotations

import asyncio
import signal
import time
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import StrEnum
from typing import NamedTuple

import structlog

log = structlog.get_logger(__name__)


class ChildState(StrEnum):
    """What a supervised process is doing."""

    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"  # it ended, or its start failed, and is tried again
    FAILED = "failed"  # its supervisor has given up
    STOPPED = "stopped"


class ChildStatus(NamedTuple):
    """The state; `restarts` counts every attempt after the first, `reason` says why it is down."""

    state: ChildState = ChildState.STOPPED
    pid: int | None = None
    restarts: int = 0
    reason: str = "not started"


class Backoff(NamedTuple):
    """Seconds between an end and the next start: doubled each time, from `first` to `longest`.

    A process that ran for `stable` seconds begins at `first` again.
    """

    first: float
    longest: float
    stable: float


class Supervisor:
    """Supervises one child process.

    `launch` starts the process and may take until it is known to work. `ended` is called each time
    it is down, with the process (None: it could not be started) and the status, to clean up and to
    report. After `attempts` ends in a row without a stable run it gives up; None: never.
    """

    def __init__(
        self,
        name: str,
        launch: Callable[[], Awaitable[Process]],
        backoff: Backoff,
        *,
        ended: Callable[[Process | None, ChildStatus], Awaitable[None]],
        attempts: int | None = None,
    ) -> None:
        self.status = ChildStatus()
        self.attempts = attempts
        self._name = name
        self._launch = launch
        self._backoff = backoff
        self._ended = ended
        self._process: Process | None = None
        self._running_since = 0.0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the process, then supervise it; raises what keeps it from starting."""
        self.status = ChildStatus(ChildState.STARTING, reason="")
        try:
            self._process = await self._launch()
        except BaseException as error:
            self.status = ChildStatus(reason=_reason(error))
            raise
        self.status = ChildStatus(ChildState.RUNNING, self._process.pid, reason="")
        self.supervise()

    def supervise(self) -> None:
        """Keep the process running from now on; a first start that fails is tried again, too."""
        self._task = asyncio.create_task(self._run())

    async def stop(self, grace: float = 0.0) -> None:
        """End the process: at once, or `grace` seconds after it was asked to."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        process, self._process = self._process, None
        self.status = ChildStatus(restarts=self.status.restarts, reason="stopped")
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.terminate() if grace else process.kill()
        try:
            async with asyncio.timeout(grace or None):
                await process.wait()
        except TimeoutError:
            log.warning("killed: it did not stop in time", process=self._name, seconds=grace)
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        await self._tell(process)

    async def _run(self) -> None:
        delay, failures = self._backoff.first, 0
        while True:
            self._running_since = time.monotonic()
            reason = await self._attempt()
            failures += 1
            if time.monotonic() - self._running_since >= self._backoff.stable:
                delay, failures = self._backoff.first, 1
            given_up = failures == self.attempts
            await self._down(ChildState.FAILED if given_up else ChildState.RESTARTING, reason)
            if given_up:
                return
            await asyncio.sleep(delay)
            delay = min(2 * delay, self._backoff.longest)

    async def _attempt(self) -> str:
        """Run the process once, or wait for the one that runs; return how it ended."""
        try:
            if self._process is None:
                self._process = await self._launch()
                self._running_since = time.monotonic()
            pid = self._process.pid
            self.status = ChildStatus(ChildState.RUNNING, pid, self.status.restarts, "")
            return f"{self._name} {described(await self._process.wait())}"
        except Exception as error:
            log.exception("a process could not be started", process=self._name)
            return _reason(error)

    async def _down(self, state: ChildState, reason: str) -> None:
        process, self._process = self._process, None
        restarts = self.status.restarts + (state is ChildState.RESTARTING)
        self.status = ChildStatus(state, None, restarts, reason)
        await self._tell(process)

    async def _tell(self, process: Process | None) -> None:
        try:
            await self._ended(process, self.status)
        except Exception:
            log.exception("cleaning up after a process failed", process=self._name)


def described(code: int) -> str:
    """Say how a process ended, from its exit code (negative: the signal's number)."""
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
