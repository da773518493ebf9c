"""Bounds the rows inside a lane, before any work is done for them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.errors import Overloaded
from gateway.telemetry import metrics

#: Longest Retry-After, in seconds: the rate is a forecast, not a promise.
LONGEST_RETRY = 30
#: Seconds over which the service rate is averaged.
HALF_LIFE = 2.0


class Admission:
    """Counts the rows between admission and answer, and refuses those beyond `limit`."""

    def __init__(self, model: str, release: str, limit: int) -> None:
        self._limit = limit
        self._rows = 0
        self._rate = 0.0  # rows a second
        self._measured = time.monotonic()
        self._gauge = metrics.ROWS_ADMITTED.labels(model, release)
        self._total = metrics.ROWS_TOTAL.labels(model, release)

    @contextmanager
    def charge(self, rows: int) -> Iterator[None]:
        """Admit `rows` for the length of the block. Raises Overloaded with a Retry-After."""
        if self._rows + rows > self._limit:
            raise Overloaded(
                f"{self._rows} rows are waiting; {rows} more would exceed the limit of"
                f" {self._limit}.",
                retry_after=self._forecast(rows),
            )
        self._rows += rows
        try:
            with metrics.held(self._gauge, rows):
                yield
            self._answered(rows)
        finally:
            self._rows -= rows

    def _answered(self, rows: int) -> None:
        self._total.inc(rows)
        now = time.monotonic()
        past, self._measured = max(now - self._measured, 1e-6), now
        keep = 0.5 ** (past / HALF_LIFE)
        self._rate = keep * self._rate + (1 - keep) * rows / past

    def _forecast(self, rows: int) -> int:
        """Seconds until `rows` more would fit, at the rate measured last."""
        excess = self._rows + rows - self._limit
        return min(LONGEST_RETRY, max(1, math.ceil(excess / self._rate))) if self._rate else 1
