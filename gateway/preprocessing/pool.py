"""A pool of worker processes for one preprocessor, shared by all gateways of a host.

One gateway runs the processes (`worker_processes.py`); every gateway talks to all of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import structlog
from gateway_preprocessor import Payload, Prepared, wire
from numpy.typing import NDArray

from gateway import differences
from gateway.preprocessing.connection import NoWorker, WorkerConnection, WorkerHung, WorkerLost
from gateway.preprocessing.installed import PreprocessorUnavailable
from gateway.preprocessing.status import WorkerState, WorkerStatus
from gateway.preprocessing.worker_processes import PoolOptions, WorkerProcesses

log = structlog.get_logger(__name__)

T = TypeVar("T")


class WorkerPool:
    """Pre- and postprocessing in other processes. Call `start` before use.

    `refused` says whether the last worker to start differed from the first one.
    """

    def __init__(self, options: PoolOptions) -> None:
        self._options = options
        self._connections: list[WorkerConnection] = []
        self._met = asyncio.Event()
        self._refusal = ""
        self.refused = False
        self._processes: WorkerProcesses | None = None
        self._identity: wire.Identity | None = None

    @property
    def identity(self) -> wire.Identity:
        """How its workers identify themselves."""
        if self._identity is None:
            raise PreprocessorUnavailable(f"{self._options.distribution} was not started")
        return self._identity

    @property
    def status(self) -> WorkerStatus:
        """Whether any worker can be asked."""
        if self.refused:
            return WorkerStatus(WorkerState.REFUSED, self._refusal)
        if not any(connection.connected for connection in self._connections):
            return WorkerStatus(WorkerState.DOWN, self._crash or "no worker answers")
        return WorkerStatus(WorkerState.READY)

    @property
    def pids(self) -> Sequence[int]:
        """The worker processes that this gateway runs."""
        return self._processes.pids if self._processes else ()

    @property
    def dead(self) -> Mapping[str, str]:
        """The workers that cannot be asked, with the reason."""
        return {
            f"{self._options.distribution}, worker {index}": self._crash or "does not answer"
            for index, connection in enumerate(self._connections)
            if not connection.connected
        }

    async def start(self) -> None:
        """Wait for the first worker.

        Raises PreprocessorUnavailable with the reason if none starts in time.
        """
        options = self._options
        self._processes = WorkerProcesses(options)
        self._connections = [
            WorkerConnection(options.socket(i), self._introduced) for i in range(options.size)
        ]
        try:
            async with asyncio.timeout(options.start_seconds):
                await self._met.wait()
        except TimeoutError:
            reason = self._crash or f"not started within {options.start_seconds:g} s"
            await self.close()
            raise PreprocessorUnavailable(f"{options.distribution}: {reason}") from None
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Disconnect; end the workers that this gateway owns."""
        for connection in self._connections:
            await connection.close()
        if self._processes:
            await self._processes.close()

    @property
    def _crash(self) -> str:
        """How this gateway's last dead worker ended; empty if none has."""
        return self._processes.crash if self._processes else ""

    async def preprocess(self, payloads: Sequence[Payload]) -> list[Prepared | Exception]:
        """Preprocess; `result[i]` answers `payloads[i]`, an exception where that one failed."""

        async def ask(items: Sequence[Payload]) -> list[Prepared | Exception]:
            reply = await self._ask(wire.Prepare(0, list(items)), wire.Prepareds)
            return [wire.prepared_of(item) for item in reply.items]

        try:
            return await ask(payloads)
        except WorkerLost as error:
            return await self._each_alone(ask, payloads, error)

    async def postprocess(
        self, outputs: Mapping[str, NDArray[Any]], contexts: Sequence[Any]
    ) -> list[bytes | Exception]:
        """Postprocess (rows, …); each result is JSON text, or an exception where it failed."""

        async def ask(rows: Sequence[int]) -> list[bytes | Exception]:
            first, last = rows[0], rows[-1] + 1  # all of them, or one
            chosen = {name: wire.Array.of(array[first:last]) for name, array in outputs.items()}
            reply = await self._ask(wire.Finish(0, chosen, contexts[first:last]), wire.Results)
            return [
                wire.WorkerFailure(item.reason) if isinstance(item, wire.Failed) else item
                for item in reply.items
            ]

        rows = range(len(contexts))
        try:
            return await ask(rows)
        except WorkerLost as error:
            return await self._each_alone(ask, rows, error)

    async def _each_alone(
        self,
        ask: Callable[[Sequence[Any]], Awaitable[list[T | Exception]]],
        items: Sequence[Any],
        lost: WorkerLost,
    ) -> list[T | Exception]:
        """Ask for each item separately after a worker died while it had all of them.

        So no item is lost with a worker, and the one that killed it fails alone.
        """
        log.warning("worker lost", distribution=self._options.distribution, reason=str(lost))
        return [await self._alone(ask, item, lost) for item in items]

    async def _alone(
        self,
        ask: Callable[[Sequence[Any]], Awaitable[list[T | Exception]]],
        item: Any,
        lost: WorkerLost,
    ) -> T | Exception:
        """Ask for one item; again if the worker dies, as that may have another cause."""
        for _ in range(2):
            try:
                (result,) = await ask([item])
            except NoWorker:
                continue  # the earlier loss says more
            except WorkerLost as error:
                lost = error
                if isinstance(error, WorkerHung):
                    break
            else:
                return result
        return wire.WorkerFailure(f"the worker died again: {lost}")

    async def _ask(self, request: wire.Request, reply: type[Any]) -> Any:
        """Ask the least busy worker; waits for one to start for as long as a call may take."""
        connection = self._least_busy()
        deadline = time.monotonic() + self._options.call_seconds
        while connection is None:
            if time.monotonic() > deadline:
                raise NoWorker("no worker is running")
            await asyncio.sleep(0.01)
            connection = self._least_busy()
        answer = await connection.ask(request, self._options.call_seconds)
        if not isinstance(answer, reply):
            raise WorkerLost(f"a {type(answer).__name__} instead of a {reply.__name__}")
        return answer

    def _least_busy(self) -> WorkerConnection | None:
        """Return the connected worker with the fewest requests, if any is connected."""
        found = None
        for each in self._connections:
            if each.connected and (found is None or len(each.waiting) < len(found.waiting)):
                found = each
        return found

    async def _introduced(self, connection: WorkerConnection, identity: wire.Identity) -> bool:
        """Accept a worker that is equal to the first one, which has been verified."""
        if self._identity is None:
            self._identity = identity
            self._met.set()
            return True
        self._refusal = await self._differs(connection, identity, self._identity)
        if self._refusal:
            log.error("worker refused", pid=identity.pid, reason=self._refusal)
        self.refused = bool(self._refusal)
        return not self.refused

    async def _differs(
        self, connection: WorkerConnection, identity: wire.Identity, known: wire.Identity
    ) -> str:
        """Return how a worker differs from the first one, in identity or golden tensors."""
        if msgspec.structs.replace(identity, id=known.id, pid=known.pid) != known:
            return "a worker started in a changed environment"
        request = wire.Prepare(0, [golden.payload for golden in known.goldens])
        reply = await connection.ask(request, self._options.call_seconds)
        if not isinstance(reply, wire.Prepareds):
            return "a worker gave a reply of the wrong kind"
        for golden, item in zip(known.goldens, map(wire.prepared_of, reply.items), strict=True):
            if isinstance(item, Exception):
                return f"a worker fails on golden case {golden.name!r}: {item}"
            if told := differences.of_tensors(golden, item.tensors):
                return f"a worker differs on golden case {golden.name!r}: {told}"
        return ""
