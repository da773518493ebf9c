"""Admits requests that can be answered in time, and counts what is in flight.

A request is refused if, at the measured rate, the rows ahead of it would take longer than its
deadline allows: at once, with the time at which there will be room, rather than after a vain wait.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from gateway.deadline import Deadline
from gateway.errors import Overloaded
from gateway.telemetry import metrics

#: Longest Retry-After, in seconds: the rate is a forecast, not a promise.
LONGEST_RETRY = 30
#: Busy seconds over which the service rate is averaged, and needed before it is believed.
HALF_LIFE, CREDIBLE = 2.0, 0.25
#: Seconds after which a measured rate is forgotten: other requests may cost something else.
FORGET = 10.0
#: Share of a deadline that may be spent on the rows ahead: under overload the rate falls.
FILLED = 0.5
#: Seconds for which a client that asks no more still counts when clients share the queue.
RECENT = 5.0


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


class ServiceRate:
    """Rows per second that a release serves while more are waiting.

    Only such time counts: how fast rows come says nothing of how fast they could be served.
    """

    def __init__(self) -> None:
        self._rows = 0.0
        self._seconds = 0.0
        self._measured = 0.0
        self._busy_since: float | None = None

    def served(self, rows: int, *, waiting: bool) -> None:
        """Note that a call has served `rows`, and whether more are waiting."""
        now = time.monotonic()
        if self._busy_since is not None:
            past = now - self._busy_since
            keep = 0.5 ** (past / HALF_LIFE)
            self._rows = keep * self._rows + rows
            self._seconds = keep * self._seconds + past
            self._measured = now
        self._busy_since = now if waiting else None

    def measured(self, now: float) -> float:
        """Return the rate at `now` (`time.monotonic`); infinite while it is not known."""
        if now - self._measured > FORGET:
            self._rows = self._seconds = 0.0
        return self._rows / self._seconds if self._seconds > CREDIBLE else math.inf


class Backlog:
    """The admitted rows, by the size of their requests in powers of two."""

    def __init__(self) -> None:
        self.rows = 0
        self._sizes: dict[int, tuple[int, int]] = {}

    def add(self, rows: int, *, requests: int = 1) -> None:
        """Add a request of `rows`; with `requests` -1, take it away."""
        self.rows += rows * requests
        size = rows.bit_length()
        count, total = self._sizes.get(size, (0, 0))
        self._sizes[size] = count + requests, total + rows * requests

    def ahead(self, rows: int) -> int:
        """Return the rows that are served before one more request of `rows` is answered.

        Requests share each call, so it waits for no more rows of another request than it has.
        """
        return sum(min(total, count * rows) for count, total in self._sizes.values())


class Admission:
    """Admits requests to one release: in time for their deadline, and at most `limit` rows.

    Clients that ask at the same time share the room: one that has its share, and requests in
    progress, is refused while the others are not.
    """

    def __init__(self, model: str, release: str, limit: int) -> None:
        self.rate = ServiceRate()
        self._limit = limit
        self._backlog = Backlog()
        self._booked = 0.0
        self._clients: dict[str, int] = {}
        self._seen: dict[str, float] = {}
        self._looked = 0.0
        self._gauge = metrics.ROWS_ADMITTED.labels(model, release)
        self._total = metrics.ROWS_TOTAL.labels(model, release)

    @contextmanager
    def charge(self, rows: int, client: str, deadline: Deadline) -> Iterator[None]:
        """Admit `rows` while the block runs. Raises Overloaded with a Retry-After."""
        self.require_room(rows, client, deadline)
        self._backlog.add(rows)
        self._clients[client] = self._clients.get(client, 0) + rows
        self._gauge.inc(rows)
        try:
            yield
            self._total.inc(rows)
        finally:
            self._backlog.add(rows, requests=-1)
            self._clients[client] -= rows
            if not self._clients[client]:
                del self._clients[client]
            self._gauge.dec(rows)

    def require_room(self, rows: int, client: str, deadline: Deadline) -> None:
        """Raise Overloaded unless `rows` more can be answered by their deadline."""
        waiting = self._backlog.rows
        if not waiting and rows <= self._limit:
            return
        now = time.monotonic()
        self._note(client, now)
        rate, left = self.rate.measured(now), deadline.at - now
        if waiting + rows > self._limit:
            told = f"{rows} more would exceed the limit of {self._limit}"
            raise self._overloaded(rows, told, now, (waiting + rows - self._limit) / rate)
        if math.isinf(rate) or left <= 0:  # nothing is known, or it is too late anyway
            return
        wait, work = self._backlog.ahead(rows) / rate / FILLED, rows / rate
        if wait + work > left:
            told = f"{rows} more could take {wait + work:.1f} s, longer than the deadline allows"
            raise self._overloaded(rows, told, now, (wait + work - left) * FILLED)
        held, room = self._clients.get(client, 0), min(self._limit, FILLED * left * rate)
        shared = held and len(self._seen) > 1 and waiting + rows > room / 2
        if shared and held + rows > room / len(self._seen):
            told = f"{held} of them are this client's share"
            raise self._overloaded(rows, told, now, rows / rate)

    def _note(self, client: str, now: float) -> None:
        """Note that a client asks while others wait, and forget those that do no more."""
        self._seen[client] = now
        if now - self._looked > RECENT:
            self._looked = now
            self._seen = {
                client: seen
                for client, seen in self._seen.items()
                if client in self._clients or now - seen < RECENT
            }

    def _overloaded(self, rows: int, told: str, now: float, seconds: float) -> Overloaded:
        """Refuse rows for which there will be room in `seconds`, one refused request after another.

        Told the same moment, all would come back together, and most in vain.
        """
        turn = max(now + seconds, self._booked)
        self._booked = min(turn + rows / self.rate.measured(now), now + LONGEST_RETRY)
        retry_after = min(LONGEST_RETRY, max(1, math.ceil(turn - now)))
        return Overloaded(
            f"{self._backlog.rows} rows are waiting; {told}.", retry_after=retry_after
        )
