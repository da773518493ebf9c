"""The worker processes of one pool, run by one of the gateways that share it.

The gateway that holds the pool's lock file owns the processes: it starts them, and restarts them
with back-off. When the owner ends, its workers do, too, and another gateway takes over.
"""

from __future__ import annotations

import asyncio
import os
from asyncio.subprocess import Process
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

import structlog

from gateway.system.files import Busy, hold
from gateway.system.output import Output
from gateway.system.supervision import Backoff, ChildState, ChildStatus, Supervisor
from gateway.telemetry import metrics

log = structlog.get_logger(__name__)

BACKOFF = Backoff(first=0.1, longest=10.0, stable=10.0)
#: Seconds between two attempts to become a pool's owner.
TAKEOVER = 0.2
LOG_TAIL = 3

#: One thread per worker: the pool's size sets the parallelism. Nothing is downloaded at run time.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


class PoolOptions(NamedTuple):
    """What to run, where, how many, and how many seconds it may take to start and to reply.

    A worker that has grown by more than `growth_bytes` is replaced; 0: none is.
    """

    python: Path
    distribution: str
    folder: Path
    size: int
    start_seconds: float
    call_seconds: float
    growth_bytes: int = 0

    def socket(self, index: int) -> Path:
        """Where a worker listens."""
        return self.folder / f"{index}.sock"


class WorkerProcesses:
    """Supervises the processes of a pool while this gateway owns it."""

    def __init__(self, options: PoolOptions) -> None:
        self.crash = ""
        self._options = options
        self._supervisors: list[Supervisor] = []
        self._outputs: dict[int, Output] = {}
        self._restarts = metrics.WORKER_RESTARTS.labels(options.distribution)
        self._task = asyncio.create_task(self._own())

    @property
    def pids(self) -> list[int]:
        """The processes that run now."""
        return [*self.running]

    @property
    def running(self) -> dict[int, int]:
        """The processes that run now, each with its worker's index."""
        found = enumerate(self._supervisors)
        return {child.status.pid: index for index, child in found if child.status.pid}

    async def close(self) -> None:
        """End the processes that this gateway owns, and give up the ownership."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for output in self._outputs.values():
            output.close()

    async def _own(self) -> None:
        """Wait to become the owner, then keep every worker running until cancelled."""
        with await self._owned():
            self._supervisors = [self._supervisor(index) for index in range(self._options.size)]
            try:
                for supervisor in self._supervisors:
                    supervisor.supervise()
                await asyncio.Event().wait()
            finally:
                await asyncio.gather(*(supervisor.stop() for supervisor in self._supervisors))

    async def _owned(self) -> IO[bytes]:
        """Return the pool's lock once this gateway holds it."""
        path = self._options.folder / "owner.lock"
        while True:
            try:
                self._make_folder()
                file = hold(path)
            except Busy:  # another gateway has it
                self.crash = ""
            except OSError as error:
                if self.crash != (reason := f"{path}: {error.strerror or error}"):
                    log.error("workers cannot be started", reason=reason)  # noqa: TRY400
                self.crash = reason
            else:
                self.crash = ""
                return file
            await asyncio.sleep(TAKEOVER)

    def _supervisor(self, index: int) -> Supervisor:
        launch, ended = partial(self._launch, index), partial(self._ended, index)
        return Supervisor("the worker", launch, BACKOFF, ended=ended)

    async def _launch(self, index: int) -> Process:
        options = self._options
        self._make_folder()  # somebody may have swept it away
        options.socket(index).unlink(missing_ok=True)
        if previous := self._outputs.pop(index, None):
            previous.close()
        reading, writing = os.pipe()
        output = await Output.of(reading, options.folder / f"{index}.log")
        self._outputs[index] = output
        try:
            return await asyncio.create_subprocess_exec(
                *(options.python, "-I", "-m", "gateway_preprocessor.worker"),
                *(options.distribution, options.socket(index)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writing,
                stderr=asyncio.subprocess.STDOUT,
                env={"PATH": os.environ.get("PATH", ""), **ENVIRONMENT},
            )
        finally:
            os.close(writing)

    def _make_folder(self) -> None:
        self._options.folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def _ended(self, index: int, process: Process | None, status: ChildStatus) -> None:
        if status.state is ChildState.STOPPED:
            return
        distribution, last, code = self._options.distribution, "", None
        if process:
            code = process.returncode
            last = await self._outputs[index].last(LOG_TAIL)
        self.crash = f"{status.reason}: {last}" if last else status.reason
        log.error("worker ended", distribution=distribution, code=code, output=last)
        self._restarts.inc()
