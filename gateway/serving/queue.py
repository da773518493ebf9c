"""What waits in a batcher: requests for preprocessing, then their rows for a call to Triton.

The order is fair; time is counted in calls. A request's first row is due at once, and its other
rows follow as if the requests present shared each call. So a single request never waits for all of
a large batch ahead of it, however long a call takes, and nothing starves: later requests are due
later.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
from gateway_preprocessor import Payload, Prepared
from numpy.typing import NDArray

from gateway.deadline import Deadline
from gateway.errors import GatewayError
from gateway.preprocessing.losses import Poisonous, Suspect
from gateway.serving.packing import Bounds, choose, not_finite
from gateway.serving.request import InferredRow, failure_of_inference, poisonous

#: Most instances in one preprocessing call: few enough that a batch does not hold up the singles
#: behind it, enough to amortise the round trip to the worker.
PREPROCESS_ROWS = 32
#: A preprocessing call longer than this, in seconds, makes the next one take fewer instances.
LONG_PREPROCESS = 0.2
#: At most this many rows, those due first, are considered for one call …
WINDOW = 64
#: … and at most this many times the rows that are due. Rows of batches that go early fill calls
#: well, but too many would lengthen the calls that singles wait for.
EARLY = 2
#: Rows of a call that the requests present share.
SHARED_ROWS = 8
_DUE = attrgetter("due")


class PendingRequest(msgspec.Struct, eq=False):
    """An admitted request.

    `queued` is the longest that any of its rows has waited, in seconds; rows that still wait have
    done so since `waiting_since` (`time.monotonic`). `stages` holds the seconds of each stage, the
    longest of rows that ran in parallel; `stage` is the present one. A `shadow` answers no client
    and is not part of the clients' metrics.
    """

    id: str
    client: str
    deadline: Deadline
    rows: int
    waiting_since: float | None
    shadow: bool = False
    queued: float = 0.0
    stages: dict[str, float] = {}
    stage: str = ""

    @property
    def place(self) -> str:
        """Where it is: in the queue, or in its present stage."""
        return self.stage if self.waiting_since is None else "queue"

    def leave_queue(self, now: float) -> None:
        """Note that none of its rows waits from `now` on (`time.monotonic`)."""
        if self.waiting_since is not None:
            self.queued += now - self.waiting_since
            self.waiting_since = None


class Work(msgspec.Struct, eq=False):
    """One request's instances in one stage; `done` resolves to a result for each, in order.

    The request awaits `done`. If that ends early (the request failed, timed out or was cancelled),
    its rows are no longer needed. `taken` counts the instances in progress.
    """

    request: PendingRequest
    stage: str
    items: Sequence[Any]
    results: list[Any]
    missing: int
    done: asyncio.Future[list[Any]]
    taken: int = 0

    def deliver(self, position: int, result: Any, seconds: float) -> None:
        """Store one instance's result and seconds; the last one completes the stage.

        A Suspect is delivered once its outcome is known. A poisonous instance fails the request at
        once, so that its other instances are not asked for.
        """
        if isinstance(result, Suspect):
            since = time.monotonic() - seconds
            result.answer.add_done_callback(
                lambda done: self.deliver(position, done.result(), time.monotonic() - since)
            )
            return
        if isinstance(result, Poisonous):
            self.fail(poisonous(position, result))
        elif isinstance(result, GatewayError):
            self.fail(result)
        self.results[position] = result
        stages = self.request.stages
        if seconds > stages.get(self.stage, 0.0):
            stages[self.stage] = seconds
        self.missing -= 1
        if not self.missing and not self.done.done():
            self.done.set_result(self.results)

    def fail(self, error: GatewayError) -> None:
        """Fail the stage, and with it the request."""
        if not self.done.done():
            self.done.set_exception(error)


def by_call(works: Sequence[Work]) -> list[list[tuple[Work, int]]]:
    """Group inferred rows, as (work, position), by the call that returned them."""
    calls: dict[int, list[tuple[Work, int]]] = {}
    for work in works:
        for position, row in enumerate(work.items):
            calls.setdefault(id(row.outputs), []).append((work, position))
    return list(calls.values())


class QueuedRow(msgspec.Struct, frozen=True, gc=False):
    """One preprocessed instance, at `position` in its request; `length` in tokens.

    `work` is its request's part of the inference stage. `since` is when it joined the queue
    (`time.monotonic`), `due` the number of the call for which it is due.
    """

    work: Work
    position: int
    prepared: Prepared
    length: int
    since: float
    due: float


def hand_out(
    rows: Sequence[QueuedRow], outputs: Mapping[str, NDArray[Any]], seconds: float
) -> None:
    """Deliver each row's share of a call's outputs, (rows, …); fail requests with NaN in theirs."""
    spoilt = not_finite(outputs)
    for index, row in enumerate(rows):
        if index in spoilt:
            row.work.fail(failure_of_inference(row.position, spoilt[index]))
            continue
        inferred = InferredRow(outputs, index, row.prepared.context)
        row.work.deliver(row.position, inferred, seconds)


class Chunk(NamedTuple):
    """Consecutive instances of one request that are preprocessed together."""

    work: Work
    start: int
    payloads: Sequence[Payload]


class ArrivalQueue:
    """The requests of one release that wait for preprocessing: `works`, oldest first."""

    def __init__(self) -> None:
        self.works: deque[Work] = deque()
        self._rows = PREPROCESS_ROWS

    def take(self) -> list[Chunk]:
        """Hand out instances for one preprocessing call, those of the oldest request first."""
        chunks, room = list[Chunk](), self._rows
        while self.works and room:
            work = self.works.popleft()
            if work.done.done():
                continue
            payloads = work.items[work.taken : work.taken + room]
            chunks.append(Chunk(work, work.taken, payloads))
            work.taken += len(payloads)
            room -= len(payloads)
            if work.taken < len(work.items):
                # The rest of a large batch queues again, behind what has arrived meanwhile.
                self.works.append(work)
            else:
                work.request.leave_queue(time.monotonic())
        return chunks

    def adapt(self, seconds: float, rows: int) -> None:
        """Take fewer instances per call after `rows` took long, and more after they were quick."""
        if seconds > LONG_PREPROCESS:
            self._rows = max(1, rows // 2)
        elif rows == self._rows and seconds < LONG_PREPROCESS / 4:
            self._rows = min(PREPROCESS_ROWS, rows * 2)


class FairQueue:
    """The queued rows of one release: `rows`, sorted by when they are due."""

    def __init__(self) -> None:
        self.rows: list[QueuedRow] = []
        self._calls = 0

    def due(self) -> int:
        """Return the number of rows that are due: a row that arrives now comes after them."""
        return bisect_right(self.rows, self._calls, key=_DUE)

    def add(
        self, work: Work, prepared: Sequence[Prepared], lengths: Sequence[int], now: float
    ) -> None:
        """Queue all rows of a request at `now` (`time.monotonic`)."""
        waiting = len({id(row.work) for row in self.rows[:WINDOW]}) if self.rows else 0
        step = (waiting + 1) / SHARED_ROWS
        for position, (item, length) in enumerate(zip(prepared, lengths, strict=True)):
            row = QueuedRow(work, position, item, length, now, self._calls + position * step)
            insort(self.rows, row, key=_DUE)

    def take(self, bounds: Bounds, overhead: int) -> list[QueuedRow]:
        """Hand out the rows of the next call; none if no queued row is still needed.

        See `packing.choose` for `bounds` and `overhead`.
        """
        window: list[QueuedRow] = []
        size = max(bounds.rows, min(WINDOW, EARLY * self.due()))
        seen = 0
        while seen < len(self.rows) and len(window) < size:
            for row in self.rows[seen : seen + size]:
                if not row.work.done.done():
                    window.append(row)  # noqa: PERF401
            seen += size
        del self.rows[:seen]
        if not window:
            return []
        self._calls += 1
        if len(window) == 1:
            return window
        chosen = set(choose([row.length for row in window], bounds, overhead))
        self.rows[:0] = [row for index, row in enumerate(window) if index not in chosen]
        return [row for index, row in enumerate(window) if index in chosen]
