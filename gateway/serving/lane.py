"""One live release: queue → preprocess → pack → infer → postprocess.

Nothing waits for company: a stage takes what has arrived as soon as it has room (and a call its
turn, where other models keep the cores busy). While calls are in flight rows gather, and so batches
form by themselves exactly when there is load.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import structlog
from gateway_preprocessor import Payload, Prepared

from gateway.errors import GatewayError, ReleaseNotReady
from gateway.preprocessing.workers import Worker
from gateway.releases.manifest import Release
from gateway.serving.admission import Admission
from gateway.serving.backlog import Backlog, Row
from gateway.serving.job import Job, Part
from gateway.serving.packing import Bounds, elements, length_of, stack
from gateway.serving.turns import Turn, Turns
from gateway.telemetry import metrics
from gateway.triton.cluster import Cluster

log = structlog.get_logger(__name__)

#: Most instances in one preprocessing call, and such calls at a time: small enough that a batch
#: does not hold up the singles behind it, large enough to spread the cost of the hand-over.
PREPARE_ROWS = 32
PREPARE_CALLS = 2
#: Seconds of one preprocessing call beyond which the next hands over fewer instances.
LONG_PREPARE = 0.2
#: Seconds after which a client may ask again while no worker may be used.
RETRY_AFTER = 2
STAGES = ("queue", "preprocess", "infer", "postprocess")


class Lane:
    """Runs the jobs of one release. Everything here belongs to the event loop's thread.

    `proven` holds the replicas, and their loads, that the alignment gate has passed; `idle` is
    set while no request that was routed here waits for its answer.
    """

    def __init__(
        self,
        model: str,
        name: str,
        release: Release,
        worker: Worker,
        cluster: Cluster,
        turns: Turns,
        queue_rows: int,
    ) -> None:
        self.model = model
        self.name = name
        self.release = release
        self.description = worker.identity.description
        self.stamps = {
            "model": model,
            "release": name,
            "model_version": release.model_version,
            "preprocessor": worker.identity.distribution,
        }
        self.admission = Admission(model, name, queue_rows)
        self._worker = worker
        self._cluster = cluster
        self._turns = turns
        self.proven: dict[str, int] = {}
        self.idle = asyncio.Event()
        self.idle.set()
        self._open = 0
        self._version = (model, release.model_version)
        self._jobs: deque[Job] = deque()
        self._backlog = Backlog()
        self._pumping = False
        self._prepare_rows = PREPARE_ROWS
        self._preparing = 0
        self._calling = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._stage = {stage: metrics.STAGE_SECONDS.labels(model, name, stage) for stage in STAGES}
        self._calls = metrics.CALLS_IN_FLIGHT.labels(model, name)
        self._call_rows = metrics.CALL_ROWS.labels(model, name)
        self._call_padding = metrics.CALL_PADDING.labels(model, name)
        self._elements = metrics.CALL_ELEMENTS.labels(model, name)
        self._padding = metrics.CALL_PADDING_ELEMENTS.labels(model, name)

    @property
    def problem(self) -> str | None:
        """Why no request can be served now; None where one can."""
        return self._worker.problem or self._cluster.problem(self._version, self.proven)

    def require_ready(self) -> None:
        """Raise ReleaseNotReady or TritonUnreachable where no replica serves the release."""
        if self._worker.problem:
            raise ReleaseNotReady(
                "The preprocessor of this release cannot run now.", retry_after=RETRY_AFTER
            )
        self._cluster.require(self._version, self.proven)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Count a request as open for the length of the block; retirement waits for it."""
        self._open += 1
        self.idle.clear()
        try:
            yield
        finally:
            self._open -= 1
            if not self._open:
                self.idle.set()

    def submit(self, job: Job) -> None:
        """Take a request in; its `answer` resolves when all its rows are done."""
        self._jobs.append(job)
        if not self._pumping:
            # Requests that arrive in one turn of the event loop are prepared together.
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    async def prepare(self, payloads: Sequence[Payload]) -> list[Prepared | Exception]:
        """Preprocess beside the queue, for comparisons."""
        return await self._worker.prepare(payloads)

    async def close(self) -> None:
        """Cancel what still runs."""
        self._turns.forget(self._pump)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _pump(self) -> None:
        """Start all the work that there is room for; called whenever that may have changed."""
        self._pumping = False
        batching, limits = self.release.batching, self._cluster.limits(self._version, self.proven)
        most_rows, instances = limits or (batching.max_rows, 0)
        bounds = Bounds(min(batching.max_rows, most_rows), batching.max_tokens)
        most_calls = batching.max_calls or instances + 1
        while self._backlog and self._calling < most_calls and self._turns.free(self._pump):
            rows = self._backlog.take(bounds, batching.call_tokens)
            if not rows:
                break
            self._calling += 1
            self._spawn(self._call(rows, self._turns.begin()), [row.job for row in rows])
        if self._backlog.due >= bounds.rows > len(self._jobs):
            return  # the next call is there already: until it goes, more requests may come
        while self._preparing < PREPARE_CALLS and (parts := self._next_parts()):
            self._preparing += 1
            self._spawn(self._prepare(parts), [part.job for part in parts])

    def _next_parts(self) -> list[Part]:
        """Take some instances, oldest request first; skip who no longer waits."""
        parts, room = list[Part](), self._prepare_rows
        while self._jobs and room:
            job = self._jobs.popleft()
            if job.over:
                continue
            parts.append(part := job.take(room))
            room -= len(part.payloads)
            if not job.all_taken:
                # The rest of a large batch queues up again, behind whoever came meanwhile.
                self._jobs.append(job)
        return parts

    async def _prepare(self, parts: list[Part]) -> None:
        started = time.perf_counter()
        try:
            for part in parts:
                part.job.waited = max(part.job.waited, started - part.job.arrived)
            payloads = [payload for part in parts for payload in part.payloads]
            found = iter(await self._worker.prepare(payloads))
            ready = time.perf_counter()
            self._adapt(ready - started, len(payloads))
            self._stage["preprocess"].observe(ready - started)
            for part in parts:
                part.job.spent("preprocess", ready - started)
                prepared = part.job.prepared(part, [next(found) for _ in part.payloads])
                lengths = [length_of(self.description.tensors, item.tensors) for item in prepared]
                self._backlog.add(part.job, prepared, lengths, ready)
        finally:
            self._preparing -= 1
            self._pump()

    def _adapt(self, seconds: float, rows: int) -> None:
        """Hand over fewer instances where they are slow, so that none waits long for another."""
        if seconds > LONG_PREPARE:
            self._prepare_rows = max(1, rows // 2)
        elif rows == self._prepare_rows and seconds < LONG_PREPARE / 4:
            self._prepare_rows = min(PREPARE_ROWS, rows * 2)

    async def _call(self, rows: list[Row], turn: Turn) -> None:
        started = time.perf_counter()
        for row in rows:
            row.job.begin(started, row.ready)
        try:
            stacked = stack(self.description.tensors, [row.prepared.tensors for row in rows])
            self._call_rows.observe(len(rows))
            self._call_padding.observe(stacked.padding)
            self._elements.inc(size := elements(self.description.tensors, stacked.tensors))
            self._padding.inc(round(size * stacked.padding))
            seconds = max(row.job.deadline for row in rows) - asyncio.get_running_loop().time()
            with metrics.held(self._calls):
                outputs = await self._cluster.infer(
                    self._version,
                    self.proven,
                    stacked.tensors,
                    self.description.outputs,
                    max(seconds, 0.001),
                )
        finally:
            self._calling -= 1
            turn.end()
            self._pump()
        inferred = time.perf_counter()
        results = await self._worker.finish(outputs, [row.prepared.context for row in rows])
        finished = time.perf_counter()
        self._stage["infer"].observe(inferred - started)
        self._stage["postprocess"].observe(finished - inferred)
        for row, result in zip(rows, results, strict=True):
            self._stage["queue"].observe(row.job.waited + started - row.ready)
            row.job.spent("infer", inferred - started)
            row.job.spent("postprocess", finished - inferred)
            row.job.finish(row.position, result)

    def _spawn(self, work: Coroutine[Any, Any, None], jobs: list[Job]) -> None:
        task = asyncio.create_task(self._guarded(work, jobs))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Coroutine[Any, Any, None], jobs: list[Job]) -> None:
        """Run a stage; whatever goes wrong in it answers the jobs that depend on it."""
        try:
            await work
        except GatewayError as error:
            for job in jobs:
                job.fail(error)
        except BaseException as error:
            requests = sorted({job.request_id for job in jobs})
            log.exception("a stage failed", model=self.model, release=self.name, requests=requests)
            for job in jobs:
                job.fail(GatewayError("The gateway failed on this request."))
            if isinstance(error, asyncio.CancelledError):
                raise
