"""Renews workers that have grown, between two calls, so that no request notices.

An interpreter hardly gives memory back: a worker that once unpacked large images would keep a
gigabyte for good. Only the gateway that runs the processes does this.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import structlog

from gateway.preprocessing.connection import WorkerConnection
from gateway.preprocessing.isolation import Isolation
from gateway.preprocessing.worker_processes import PoolOptions, WorkerProcesses

log = structlog.get_logger(__name__)

#: Seconds between two looks, and between two workers that are renewed.
LOOK, PAUSE = 1.0, 10.0
#: Seconds that a worker has to end once it is idle.
END = 5.0
STEP = 0.01
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Renewal:
    """Watches the memory of a pool's workers until closed."""

    def __init__(
        self,
        options: PoolOptions,
        processes: WorkerProcesses,
        connections: Sequence[WorkerConnection],
        isolation: Isolation,
    ) -> None:
        self._options = options
        self._processes = processes
        self._connections = connections
        self._isolation = isolation
        self._first: dict[int, int] = {}  # bytes of each process when it had just started
        self._task = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Stop watching."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            running = self._processes.running
            self._first = {pid: size for pid, size in self._first.items() if pid in running}
            for pid, index in running.items():
                with suppress(OSError):  # it has just ended
                    size = resident(pid)
                    if self._connections[index].connected:
                        grown = size - self._first.setdefault(pid, size)
                        if grown > self._options.growth_bytes:
                            await self._renew(pid, self._connections[index], grown)
                            await asyncio.sleep(PAUSE)

    async def _renew(self, pid: int, connection: WorkerConnection, grown: int) -> None:
        """Let a worker finish what it has, and end it: its supervisor starts a fresh one."""
        others = [each for each in self._connections if each is not connection]
        async with self._isolation.turn():  # no suspect may be on it
            if others and not any(each.connected for each in others):
                return  # who would answer meanwhile?
            connection.quarantined = True
            try:
                await _until(lambda: not connection.waiting, self._options.call_seconds)
                log.warning("worker renewed: it has grown", pid=pid, bytes=grown)
                os.kill(pid, signal.SIGTERM)
                await _until(lambda: not connection.connected, END)
            finally:
                connection.quarantined = False


async def _until(holds: Callable[[], bool], seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                if holds():
                    return
                await asyncio.sleep(STEP)


def resident(pid: int) -> int:
    """Return the resident bytes of a process (proc(5), statm). Raises OSError."""
    return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * _PAGE
