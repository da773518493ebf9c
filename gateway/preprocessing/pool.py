"""A pool of worker processes for one preprocessor, shared by all gateways of a host.

One gateway runs the processes (`worker_processes.py`); every gateway talks to all of them.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import structlog
from gateway_preprocessor import Payload, Prepared, wire
from numpy.typing import NDArray

from gateway.errors import ReleaseNotReady
from gateway.preprocessing.connection import WorkerConnection
from gateway.preprocessing.equality import differs
from gateway.preprocessing.installed import PreprocessorUnavailable
from gateway.preprocessing.isolation import Ask, Isolation, settled
from gateway.preprocessing.losses import Wait, WorkerLost
from gateway.preprocessing.memory import Renewal
from gateway.preprocessing.status import WorkerState, WorkerStatus
from gateway.preprocessing.worker_processes import PoolOptions, WorkerProcesses

log = structlog.get_logger(__name__)

T = TypeVar("T")
#: Seconds after which a worker's present call counts as late: others are asked rather than it.
LATE_SECONDS = 1.0
#: As many requests as that weighs.
LATE_PENALTY = 1000
#: How many times longer a suspect, or a caller without a deadline, waits for a worker.
PATIENCE = 3


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
        self._renewal: Renewal | None = None
        self._identity: wire.Identity | None = None
        self._isolation = Isolation(options.distribution, options.folder)
        self._forever: Wait = asyncio.get_running_loop().create_future()

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
        if options.growth_bytes:
            self._renewal = Renewal(options, self._processes, self._connections, self._isolation)
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
        if self._renewal:
            await self._renewal.close()
        await self._isolation.close()
        for connection in self._connections:
            await connection.close()
        if self._processes:
            await self._processes.close()

    @property
    def _crash(self) -> str:
        """How this gateway's last dead worker ended; empty if none has."""
        return self._processes.crash if self._processes else ""

    async def preprocess(
        self, payloads: Sequence[Payload], waits: Sequence[Wait] = ()
    ) -> list[Prepared | Exception]:
        """Preprocess; `result[i]` answers `payloads[i]`, an exception where that one failed.

        `waits[i]` is what the request of `payloads[i]` waits for. With them, an exception may be a
        Suspect, which has its outcome later. Raises ReleaseNotReady if no worker runs.
        """

        async def ask(
            items: Sequence[Payload], waits: Sequence[Wait], *, alone: bool = False
        ) -> list[Prepared | Exception]:
            request = wire.Prepare(0, list(items))
            reply = await self._ask(request, wire.Prepareds, waits, alone=alone)
            return [wire.prepared_of(item) for item in reply.items]

        return await self._call(ask, payloads, waits)

    async def postprocess(
        self,
        outputs: Mapping[str, NDArray[Any]],
        contexts: Sequence[Any],
        waits: Sequence[Wait] = (),
    ) -> list[bytes | Exception]:
        """Postprocess (rows, …); each result is JSON text, or an exception where it failed.

        `waits`, Suspects and ReleaseNotReady as in `preprocess`.
        """

        async def ask(
            items: Sequence[int], waits: Sequence[Wait], *, alone: bool = False
        ) -> list[bytes | Exception]:
            everything = len(items) == len(contexts)
            chosen = outputs if everything else {k: v[list(items)] for k, v in outputs.items()}
            arrays = {name: wire.Array.of(array) for name, array in chosen.items()}
            given = contexts if everything else [contexts[row] for row in items]
            request = wire.Finish(0, arrays, given)
            reply = await self._ask(request, wire.Results, waits, alone=alone)
            return [
                wire.WorkerFailure(item.reason) if isinstance(item, wire.Failed) else item
                for item in reply.items
            ]

        rows = range(len(contexts))
        return await self._call(ask, rows, waits)

    async def _call(
        self, ask: Ask[T], items: Sequence[Any], waits: Sequence[Wait]
    ) -> list[T | Exception]:
        if not waits:  # nobody has a deadline: wait for the outcomes
            found: list[T | Exception]
            try:
                found = await self._isolation.ask(ask, items, [self._forever] * len(items))
            except ReleaseNotReady as error:
                return [wire.WorkerFailure(error.detail) for _ in items]
            return await settled(found)
        if self._isolation.trials:
            return await self._isolation.ask(ask, items, waits)
        try:
            return await ask(items, waits)
        except WorkerLost as error:
            return await self._isolation.again(ask, items, waits, error)

    async def _ask(
        self, request: wire.Request, reply: type[Any], waits: Sequence[Wait], *, alone: bool
    ) -> Any:
        """Ask the least busy worker; waits for one to start for as long as a call may take.

        A suspect, `alone`, has its worker to itself: nothing is sent behind it. Raises WorkerLost,
        ReleaseNotReady.
        """
        patient = alone or waits[0] is self._forever
        patience = self._options.call_seconds * (PATIENCE if patient else 1)
        deadline = time.monotonic() + patience
        while (connection := self._least_busy(spare=alone)) is None:
            if time.monotonic() > deadline or all(wait.done() for wait in waits):
                raise ReleaseNotReady("No worker of this release's preprocessor can be asked now.")
            await asyncio.sleep(0.01)
        connection.quarantined = alone
        try:
            answer = await connection.ask(request, self._options.call_seconds, waits)
        finally:
            if alone:
                connection.quarantined = False
        if not isinstance(answer, reply):
            raise WorkerLost(f"a {type(answer).__name__} instead of a {reply.__name__}")
        return answer

    def _least_busy(self, *, spare: bool) -> WorkerConnection | None:
        """Return the worker that can be asked with the fewest requests, late ones last.

        `spare`: only if another one is left for everybody else, or the pool has but one.
        """
        found, least, healthy = None, math.inf, 0
        late = time.monotonic() - LATE_SECONDS
        for each in self._connections:
            if each.connected and not each.quarantined:
                waiting = len(each.waiting)
                if waiting and each.since < late:
                    waiting += LATE_PENALTY
                else:
                    healthy += 1
                if waiting < least:
                    found, least = each, waiting
        if spare and healthy < min(2, len(self._connections)):
            return None
        return found

    async def _introduced(self, connection: WorkerConnection, identity: wire.Identity) -> bool:
        """Accept a worker that is equal to the first one, which has been verified."""
        if self._identity is None:
            self._identity = identity
            self._met.set()
            return True
        seconds = self._options.call_seconds
        self._refusal = await differs(connection, identity, self._identity, seconds)
        if self._refusal:
            log.error("worker refused", pid=identity.pid, reason=self._refusal)
        self.refused = bool(self._refusal)
        return not self.refused
