"""One release's batcher: takes rows through preprocess, infer and postprocess.

A request asks for one stage after another (`serving/predict.py`); each stage runs rows of several
requests together. No stage waits to fill a batch: it takes what has arrived as soon as it has room.
While calls are in flight rows gather, so batches form exactly under load.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any

import structlog
from gateway_preprocessor import Payload, Prepared

from gateway.errors import GatewayError, ReleaseNotReady
from gateway.preprocessing.workers import Preprocessing
from gateway.releases.manifest import Release
from gateway.serving.admission import Admission
from gateway.serving.limiter import CallLimiter, Permit
from gateway.serving.packing import Bounds, length_of, stack
from gateway.serving.queue import (
    ArrivalQueue,
    Chunk,
    FairQueue,
    PendingRequest,
    QueuedRow,
    Work,
    by_call,
    hand_out,
)
from gateway.serving.request import InferredRow, Stamps
from gateway.telemetry import metrics
from gateway.triton.model_control import ModelVersion
from gateway.triton.pool import TritonPool, Verified, VersionState

log = structlog.get_logger(__name__)
#: Preprocessing calls of one release at a time.
PREPROCESS_CALLS = 2
#: Seconds that a call may outlast its requests: Triton goes on with a call that is given up, so
#: another one in its place would only pile up there.
GRACE = 5.0


class Batcher:
    """Runs the rows of one release. Everything here belongs to the event loop's thread.

    `verified` names the replicas, and their loads, on which the release has been verified.
    """

    def __init__(
        self,
        model: str,
        name: str,
        release: Release,
        preprocessing: Preprocessing,
        triton: TritonPool,
        limiter: CallLimiter,
        queue_rows: int,
    ) -> None:
        self.model = model
        self.name = name
        self.description = preprocessing.identity.description
        distribution = preprocessing.identity.distribution
        self.stamps = Stamps(model, name, release.model_version, distribution)
        self.admission = Admission(model, name, queue_rows)
        self.verified: Verified = Verified(ModelVersion(model, release.model_version))
        self._batching = release.batching
        self.preprocessing = preprocessing
        self._triton = triton
        self._limiter = limiter
        self._arrived = ArrivalQueue()
        self._queue = FairQueue()
        self._inferred: list[Work] = []
        self._scheduled = False
        self._preprocess_calls = 0
        self._calls = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._metrics = metrics.BatcherMetrics(model, name)

    def require_able(self) -> None:
        """Raise ReleaseNotReady or TritonUnreachable if the release cannot answer now."""
        if self.preprocessing.refused:
            raise ReleaseNotReady("The preprocessor of this release cannot run now.")
        self._triton.require_able(self.verified)

    @property
    def able(self) -> bool:
        """Whether the release can answer at once."""
        state = self._triton.status(self.verified).state
        return state is VersionState.READY and not self.preprocessing.refused

    def preprocess(
        self, request: PendingRequest, payloads: Sequence[Payload]
    ) -> asyncio.Future[list[Prepared | Exception]]:
        """Turn each payload into tensors, or into the exception that says why not."""
        self._arrived.works.append(work := self._work(request, "preprocess", payloads))
        return work.done

    def infer(
        self, request: PendingRequest, prepared: Sequence[Prepared]
    ) -> asyncio.Future[list[InferredRow]]:
        """Queue the rows and run them in calls to Triton; fails with a GatewayError."""
        work = self._work(request, "infer", prepared)
        request.waiting_since = now = time.monotonic()
        lengths = [length_of(self.description.tensors, item.tensors) for item in prepared]
        self._queue.add(work, prepared, lengths, now)
        return work.done

    def postprocess(
        self, request: PendingRequest, rows: Sequence[InferredRow]
    ) -> asyncio.Future[list[bytes | Exception]]:
        """Turn each row of outputs into a result (JSON text), or into an exception."""
        self._inferred.append(work := self._work(request, "postprocess", rows))
        return work.done

    async def close(self) -> None:
        """Cancel all running work."""
        self._limiter.forget(self._advance)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _work(self, request: PendingRequest, stage: str, items: Sequence[Any]) -> Work:
        loop, request.stage, size = asyncio.get_running_loop(), stage, len(items)
        self._advance_soon()
        return Work(request, stage, items, [None] * size, size, loop.create_future())

    def _advance_soon(self) -> None:
        """Advance at the end of this iteration of the event loop."""
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._advance)

    def _advance(self) -> None:
        """Start all work that there is room for, starting with the work closest to an answer."""
        self._scheduled = False
        inferred, self._inferred = self._inferred, []
        for rows in by_call(inferred):
            self._spawn(self._postprocess(rows), [work for work, _ in rows])
        if self._queue.rows and self._start_calls():
            return
        while self._arrived.works and self._preprocess_calls < PREPROCESS_CALLS:
            if not (chunks := self._arrived.take()):
                break
            self._preprocess_calls += 1
            self._spawn(self._preprocess(chunks), [chunk.work for chunk in chunks])

    def _start_calls(self) -> bool:
        """Start calls; return whether all rows of the next one are queued and due.

        If so, preprocessing can wait: until that call starts, more requests may arrive to share it.
        """
        batching = self._batching
        most_rows, instances = self._triton.limits(self.verified) or (batching.max_rows, 0)
        bounds = Bounds(min(batching.max_rows, most_rows), batching.max_tokens)
        most_calls = batching.max_calls or instances + 1
        while self._queue.rows and self._calls < most_calls:
            if (permit := self._limiter.acquire(self._advance)) is None:
                break
            if not (rows := self._queue.take(bounds, batching.call_tokens)):
                permit.release()
                break
            self._calls += 1
            self._spawn(self._call(rows, permit), [row.work for row in rows])
        return bool(self._queue.rows) and self._queue.due() >= bounds.rows > len(
            self._arrived.works
        )

    async def _preprocess(self, chunks: list[Chunk]) -> None:
        started = time.monotonic()
        try:
            payloads = [payload for chunk in chunks for payload in chunk.payloads]
            waits = [chunk.work.done for chunk in chunks for _ in chunk.payloads]
            found = iter(await self.preprocessing.preprocess(payloads, waits))
            seconds = time.monotonic() - started
            self._metrics.seconds["preprocess"].observe(seconds)
            self._arrived.adapt(seconds, len(payloads))
            for work, start, part in chunks:
                for position in range(start, start + len(part)):
                    work.deliver(position, next(found), seconds)
        finally:
            self._preprocess_calls -= 1
            self._advance_soon()

    async def _call(self, rows: list[QueuedRow], permit: Permit) -> None:
        started = time.monotonic()
        for row in rows:
            work, request = row.work, row.work.request
            self._metrics.seconds["queue"].observe(request.queued + started - row.since)
            work.taken += 1
            if work.taken == len(work.items):
                request.leave_queue(started)
        try:
            stacked = stack(self.description.tensors, [row.prepared.tensors for row in rows])
            self._metrics.rows.observe(len(rows))
            self._metrics.padding_ratio.observe(stacked.padding / max(stacked.elements, 1))
            self._metrics.elements.inc(stacked.elements)
            self._metrics.padding.inc(stacked.padding)
            latest = max(row.work.request.deadline for row in rows)
            deadline = latest._replace(at=latest.at + GRACE)
            with self._metrics.in_flight.track_inprogress():
                outputs = await self._triton.infer(
                    self.verified, stacked.tensors, self.description.outputs, deadline
                )
            waiting = bool(self._queue.rows or self._arrived.works)
            self.admission.rate.served(len(rows), waiting=waiting)
            seconds = time.monotonic() - started
            self._metrics.seconds["infer"].observe(seconds)
            hand_out(rows, outputs, seconds)
        finally:
            self._calls -= 1
            permit.release()
            self._advance_soon()

    async def _postprocess(self, rows: list[tuple[Work, int]]) -> None:
        started = time.monotonic()
        found: list[InferredRow] = [work.items[position] for work, position in rows]
        outputs, indices = found[0].outputs, [row.position for row in found]
        if any(indices != list(range(len(array))) for array in outputs.values()):
            outputs = {name: array[indices] for name, array in outputs.items()}
        contexts, waits = [row.context for row in found], [work.done for work, _ in rows]
        results = await self.preprocessing.postprocess(outputs, contexts, waits)
        self._metrics.seconds["postprocess"].observe(seconds := time.monotonic() - started)
        for (work, position), result in zip(rows, results, strict=True):
            work.deliver(position, result, seconds)

    def _spawn(self, stage: Coroutine[Any, Any, None], works: list[Work]) -> None:
        task = asyncio.create_task(self._run(stage, works))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, stage: Coroutine[Any, Any, None], works: list[Work]) -> None:
        """Run a stage; any failure in it fails the requests that depend on it."""
        try:
            await stage
        except GatewayError as error:
            for work in works:
                work.fail(error)
        except BaseException as error:
            requests = sorted({work.request.id for work in works})
            log.exception("a stage failed", model=self.model, release=self.name, requests=requests)
            for work in works:
                work.fail(GatewayError("The gateway failed on this request."))
            if isinstance(error, asyncio.CancelledError):
                raise
