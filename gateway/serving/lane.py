"""One live release: queue → preprocess → pack → infer → postprocess.

Nothing waits for company: a stage takes what has arrived as soon as it has room. While calls are
in flight rows gather, and so batches form by themselves exactly when there is load.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Protocol

import structlog
from gateway_preprocessor import Description, Payload, Prepared
from numpy.typing import NDArray

from gateway.errors import GatewayError
from gateway.releases.manifest import Release
from gateway.serving.admission import Admission
from gateway.serving.job import Job, Part, Row
from gateway.serving.packing import choose, length_of, stack
from gateway.telemetry import metrics
from gateway.triton.cluster import Cluster

log = structlog.get_logger(__name__)

#: Instances given to one preprocessing call, and such calls at a time: small enough that a large
#: batch does not hold up the singles behind it, large enough to spread the cost of the hand-over.
PREPARE_ROWS = 32
PREPARE_CALLS = 2
STAGES = ("queue", "preprocess", "infer", "postprocess")


class Worker(Protocol):
    """Where pre- and postprocessing run."""

    distribution: str
    description: Description

    async def prepare(self, payloads: Sequence[Payload]) -> list[Prepared | Exception]:
        """Preprocess; an entry is an exception where that payload failed."""

    async def finish(
        self, outputs: Mapping[str, NDArray[Any]], contexts: Sequence[Any]
    ) -> list[bytes | Exception]:
        """Postprocess a call's outputs to JSON text; an exception where that row failed."""


class Lane:
    """Runs the jobs of one release. Everything here belongs to the event loop's thread."""

    def __init__(
        self,
        model: str,
        name: str,
        release: Release,
        worker: Worker,
        cluster: Cluster,
        queue_rows: int,
    ) -> None:
        self.model = model
        self.name = name
        self.release = release
        self.description = worker.description
        self.stamps = {
            "model": model,
            "release": name,
            "model_version": release.model_version,
            "preprocessor": worker.distribution,
        }
        self.admission = Admission(model, name, queue_rows)
        self._worker = worker
        self._cluster = cluster
        self._version = (model, release.model_version)
        self._jobs: deque[Job] = deque()
        self._rows: deque[Row] = deque()
        self._preparing = 0
        self._calling = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._stage = {stage: metrics.STAGE_SECONDS.labels(model, name, stage) for stage in STAGES}
        self._calls = metrics.CALLS_IN_FLIGHT.labels(model, name)
        self._call_rows = metrics.CALL_ROWS.labels(model, name)
        self._call_padding = metrics.CALL_PADDING.labels(model, name)

    @property
    def problem(self) -> str | None:
        """Why no request can be served now; None where one can."""
        return self._cluster.problem(self._version)

    def require_ready(self) -> None:
        """Raise ReleaseNotReady or TritonUnreachable where no replica serves the release."""
        self._cluster.require(self._version)

    def submit(self, job: Job) -> None:
        """Take a request in; its `answer` resolves when all its rows are done."""
        self._jobs.append(job)
        self._pump()

    async def close(self) -> None:
        """Cancel what still runs."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _pump(self) -> None:
        """Start all the work that there is room for; called whenever that may have changed."""
        while self._preparing < PREPARE_CALLS and (parts := self._next_parts()):
            self._preparing += 1
            self._spawn(self._prepare(parts), [part.job for part in parts])
        max_rows, max_calls = self._bounds()
        while self._calling < max_calls and (rows := self._next_rows(max_rows)):
            self._calling += 1
            self._spawn(self._call(rows), [row.job for row in rows])

    def _bounds(self) -> tuple[int, int]:
        """Return the most rows in a call and the most calls in flight, as of now."""
        batching, limits = self.release.batching, self._cluster.limits(self._version)
        if limits is None:
            return batching.max_rows, 1
        max_calls = batching.max_calls or limits.instances + 1
        return min(batching.max_rows, limits.max_batch_size), max_calls

    def _next_parts(self) -> list[Part]:
        """Take up to PREPARE_ROWS instances, oldest request first; skip who no longer waits."""
        parts: list[Part] = []
        room = PREPARE_ROWS
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

    def _next_rows(self, max_rows: int) -> list[Row]:
        """Take the oldest row that somebody waits for, and those that fit beside it."""
        while self._rows and self._rows[0].job.over:
            self._rows.popleft()
        if not self._rows:
            return []
        chosen = choose(self._rows, max_rows)
        rows = [self._rows[index] for index in chosen]
        for index in sorted(chosen, reverse=True):
            del self._rows[index]
        return [row for row in rows if not row.job.over]

    async def _prepare(self, parts: list[Part]) -> None:
        started = time.perf_counter()
        try:
            found = iter(await self._worker.prepare([p for part in parts for p in part.payloads]))
        finally:
            self._preparing -= 1
        ready = time.perf_counter()
        self._stage["preprocess"].observe(ready - started)
        for part in parts:
            part.job.waited = max(part.job.waited, started - part.job.arrived)
            part.job.spent("preprocess", ready - started)
            prepared = part.job.prepared(part, [next(found) for _ in part.payloads])
            self._rows += [
                Row(part.job, i, item, length_of(self.description.tensors, item.tensors), ready)
                for i, item in enumerate(prepared)
            ]
        self._pump()

    async def _call(self, rows: list[Row]) -> None:
        started = time.perf_counter()
        stacked = stack(self.description.tensors, [row.prepared.tensors for row in rows])
        self._call_rows.observe(len(rows))
        self._call_padding.observe(stacked.padding)
        seconds = max(row.job.deadline for row in rows) - asyncio.get_running_loop().time()
        try:
            with metrics.held(self._calls):
                outputs = await self._cluster.infer(
                    self._version, stacked.tensors, self.description.outputs, max(seconds, 0.001)
                )
        finally:
            self._calling -= 1
            self._pump()
        inferred = time.perf_counter()
        results = await self._worker.finish(outputs, [row.prepared.context for row in rows])
        finished = time.perf_counter()
        self._stage["infer"].observe(inferred - started)
        self._stage["postprocess"].observe(finished - inferred)
        for row, result in zip(rows, results, strict=True):
            waited = row.job.waited + started - row.ready
            self._stage["queue"].observe(waited)
            row.job.spent("queue", waited)
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
        except Exception:
            log.exception("a stage failed", model=self.model, release=self.name)
            for job in jobs:
                job.fail(GatewayError("The gateway failed on this request."))
