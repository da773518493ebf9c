"""Counts what is in flight: requests until they are answered, rows up to a release's bound."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from gateway.errors import Overloaded
from gateway.telemetry import metrics

#: Longest Retry-After, in seconds: the rate is a forecast, not a promise.
LONGEST_RETRY = 30
#: Seconds over which the service rate is averaged.
HALF_LIFE = 2.0


class InFlight:
    """Requests between routing and answer, counted by owner (their batcher).

    A retiring release waits for its own requests, shutdown for all.
    """

    def __init__(self) -> None:
        self._counts: dict[Hashable, int] = {}
        self._ended: asyncio.Event | None = None

    @contextmanager
    def held(self, owner: Hashable) -> Iterator[None]:
        """Count a request of `owner` while the block runs."""
        self._counts[owner] = self._counts.get(owner, 0) + 1
        metrics.REQUESTS_OPEN.inc()
        try:
            yield
        finally:
            metrics.REQUESTS_OPEN.dec()
            self._counts[owner] -= 1
            if not self._counts[owner]:
                del self._counts[owner]
                if self._ended:
                    self._ended.set()

    async def none(self, owner: Hashable | None = None) -> None:
        """Wait until no request is in flight: none of `owner`, or none at all."""
        while owner in self._counts if owner is not None else self._counts:
            self._ended = (
                self._ended if self._ended and not self._ended.is_set() else asyncio.Event()
            )
            await self._ended.wait()


class Admission:
    """Counts the rows of one release between admission and answer, and refuses any over `limit`."""

    def __init__(self, model: str, release: str, limit: int) -> None:
        self._limit = limit
        self._rows = 0
        self._rate = 0.0  # rows per second
        self._measured = time.monotonic()
        self._gauge = metrics.ROWS_ADMITTED.labels(model, release)
        self._total = metrics.ROWS_TOTAL.labels(model, release)

    @contextmanager
    def charge(self, rows: int) -> Iterator[None]:
        """Admit `rows` while the block runs. Raises Overloaded with a Retry-After."""
        if self._rows + rows > self._limit:
            raise Overloaded(
                f"{self._rows} rows are waiting; {rows} more would exceed the limit of"
                f" {self._limit}.",
                retry_after=self._forecast(rows),
            )
        self._rows += rows
        self._gauge.inc(rows)
        try:
            yield
            self._answered(rows)
        finally:
            self._rows -= rows
            self._gauge.dec(rows)

    def _answered(self, rows: int) -> None:
        self._total.inc(rows)
        now = time.monotonic()
        past, self._measured = max(now - self._measured, 1e-6), now
        keep = 0.5 ** (past / HALF_LIFE)
        self._rate = keep * self._rate + (1 - keep) * rows / past

    def _forecast(self, rows: int) -> int:
        """Return the seconds until `rows` more would fit, at the current rate."""
        excess = self._rows + rows - self._limit
        return min(LONGEST_RETRY, max(1, math.ceil(excess / self._rate))) if self._rate else 1
