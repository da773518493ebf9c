"""Prepared rows that wait for their call, in the order of their turns.

Time is counted in calls. A request's first row has its turn at once; its next ones follow as if the
requests present shared each call. So a single does not wait for all of a large batch before it,
however long a call takes, and nothing starves: later requests have later turns.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from operator import attrgetter

import msgspec
from gateway_preprocessor import Prepared

from gateway.serving.job import Job
from gateway.serving.packing import Bounds, choose

#: Rows that are looked at for one call: at most so many, those first whose turn it is, …
WINDOW = 64
#: … and at most so many times those whose turn has come. Rows of batches that go early are good
#: company, but more of them would make the calls long that others' singles wait for.
EARLY = 2
#: Rows of a call that the requests present share.
SHARED_ROWS = 8
_TURN = attrgetter("turn")


class Row(msgspec.Struct, frozen=True, gc=False):
    """One prepared instance of a request, ready since `ready` (s); `length` in tokens."""

    job: Job
    position: int
    prepared: Prepared
    length: int
    ready: float
    turn: float


class Backlog:
    """The rows of one lane."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._calls = 0

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def due(self) -> int:
        """How many rows' turn has come: who arrives now has no turn before these."""
        return bisect_right(self._rows, self._calls, key=_TURN)

    def add(
        self, job: Job, prepared: Sequence[Prepared], lengths: Sequence[int], now: float
    ) -> None:
        """Take all rows of a request in, which are ready `now` (s)."""
        waiting = len({id(row.job) for row in self._rows[:WINDOW]})
        step = (waiting + 1) / SHARED_ROWS
        for position, (item, length) in enumerate(zip(prepared, lengths, strict=True)):
            row = Row(job, position, item, length, now, self._calls + position * step)
            insort(self._rows, row, key=_TURN)

    def take(self, bounds: Bounds, overhead: int) -> list[Row]:
        """Hand out the rows of the next call; empty where nobody waits. See `packing.choose`."""
        window: list[Row] = []
        size = max(bounds.rows, min(WINDOW, EARLY * self.due))
        seen = 0
        while seen < len(self._rows) and len(window) < size:
            window += [row for row in self._rows[seen : seen + size] if not row.job.over]
            seen += size
        del self._rows[:seen]
        if not window:
            return []
        chosen = set(choose([row.length for row in window], bounds, overhead))
        self._rows[:0] = [row for index, row in enumerate(window) if index not in chosen]
        self._calls += 1
        return [row for index, row in enumerate(window) if index in chosen]
