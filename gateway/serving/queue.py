"""Preprocessed rows that wait for a call to Triton, in fair order.

Time is counted in calls. A request's first row is due at once; its other rows follow as if the
requests present shared each call. So a single does not wait for all of a large batch before it,
however long a call takes, and nothing starves: later requests are due later.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right, insort
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import msgspec
from gateway_preprocessor import Prepared

from gateway.deadline import Deadline
from gateway.errors import GatewayError
from gateway.serving.packing import Bounds, choose

STAGES = ("queue", "preprocess", "infer", "postprocess")
#: At most this many rows are considered for one call, those due first …
WINDOW = 64
#: … and at most this many times the rows that are due. Rows of batches that go early fill calls
#: well, but more of them would lengthen the calls that other requests' singles wait for.
EARLY = 2
#: Rows of a call that the requests present share.
SHARED_ROWS = 8
_DUE = attrgetter("due")


class PendingRequest(msgspec.Struct, eq=False):
    """An admitted request.

    `queued` is how many seconds its rows have waited, the longest wait counting; while rows still
    wait, they do so since `waiting_since` (seconds of `time.monotonic`). `stages` holds the seconds
    of each stage; where rows ran in parallel, the longest. A `shadow` answers no client, and is
    left out of what is measured for clients.
    """

    id: str
    deadline: Deadline
    rows: int
    waiting_since: float | None
    shadow: bool = False
    queued: float = 0.0
    stages: dict[str, float] = msgspec.field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    def spent(self, stage: str, seconds: float) -> None:
        """Record the time of a stage; the longest of the request's rows counts."""
        self.stages[stage] = max(self.stages[stage], seconds)

    def leave_queue(self, now: float) -> None:
        """Note that none of its rows waits any more, from `now` on (`time.monotonic`)."""
        if self.waiting_since is not None:
            self.queued += now - self.waiting_since
            self.waiting_since = None


class Work(msgspec.Struct, eq=False):
    """One request's instances in one stage; `done` resolves to a result for each, in order.

    The request awaits `done`: once that is done otherwise (the request failed, timed out or was
    cancelled), nothing needs its rows any more. `taken` counts the instances under way.
    """

    request: PendingRequest
    items: Sequence[Any]
    results: list[Any]
    missing: int
    done: asyncio.Future[list[Any]]
    taken: int = 0

    def deliver(self, position: int, result: Any) -> None:
        """Take the result of one instance; the last one completes the stage."""
        self.results[position] = result
        self.missing -= 1
        if not self.missing and not self.done.done():
            self.done.set_result(self.results)

    def fail(self, error: GatewayError) -> None:
        """Fail the stage, and the request with it."""
        if not self.done.done():
            self.done.set_exception(error)


class QueuedRow(msgspec.Struct, frozen=True, gc=False):
    """One preprocessed instance, at `position` in its request; `length` in tokens.

    `work` is its request's share of the inference stage. `since` is when it joined the queue
    (seconds of `time.monotonic`), `due` the number of the call that it is due for.
    """

    work: Work
    position: int
    prepared: Prepared
    length: int
    since: float
    due: float


class FairQueue:
    """The queued rows of one release."""

    def __init__(self) -> None:
        self._rows: list[QueuedRow] = []
        self._calls = 0

    def __len__(self) -> int:
        return len(self._rows)

    def due(self) -> int:
        """Return how many rows are due: a row that arrives now comes after these."""
        return bisect_right(self._rows, self._calls, key=_DUE)

    def add(
        self, work: Work, prepared: Sequence[Prepared], lengths: Sequence[int], now: float
    ) -> None:
        """Queue all rows of a request, at `now` (seconds of `time.monotonic`)."""
        waiting = len({id(row.work) for row in self._rows[:WINDOW]}) if self._rows else 0
        step = (waiting + 1) / SHARED_ROWS
        for position, (item, length) in enumerate(zip(prepared, lengths, strict=True)):
            row = QueuedRow(work, position, item, length, now, self._calls + position * step)
            insort(self._rows, row, key=_DUE)

    def take(self, bounds: Bounds, overhead: int) -> list[QueuedRow]:
        """Hand out the rows of the next call; none where no row is wanted any more.

        See `packing.choose` for `bounds` and `overhead`.
        """
        window: list[QueuedRow] = []
        size = max(bounds.rows, min(WINDOW, EARLY * self.due()))
        seen = 0
        while seen < len(self._rows) and len(window) < size:
            for row in self._rows[seen : seen + size]:
                if not row.work.done.done():
                    window.append(row)  # noqa: PERF401
            seen += size
        del self._rows[:seen]
        if not window:
            return []
        self._calls += 1
        if len(window) == 1:
            return window
        chosen = set(choose([row.length for row in window], bounds, overhead))
        self._rows[:0] = [row for index, row in enumerate(window) if index not in chosen]
        return [row for index, row in enumerate(window) if index in chosen]
