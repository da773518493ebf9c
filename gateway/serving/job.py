"""One request inside a lane: its rows, what became of each, and the answer they add up to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple

import structlog
from gateway_preprocessor import InvalidInput, Payload, Prepared

from gateway.errors import MOST_ERRORS, DeadlineExceeded, GatewayError, InputError, InvalidInstances

log = structlog.get_logger(__name__)

#: The shortest deadline, in seconds: reading a large body can leave even less than none.
LEAST_SECONDS = 0.001


class Part(NamedTuple):
    """Consecutive instances of one request that are preprocessed together."""

    job: Job
    start: int
    payloads: Sequence[Payload]


class Job:
    """A request's instances on their way; `answer` resolves to their results in order.

    It may take `seconds` from now on; `deadline` is when they end, in seconds of the event loop's
    clock, and `waited` the seconds before preprocessing.
    A `shadow` answers no client, and is left out of what is measured for clients.
    `stages` tells, for Server-Timing, the seconds of each stage; where rows ran in parallel it is
    the longest of them.
    """

    def __init__(
        self, payloads: Sequence[Payload], seconds: float, request_id: str, *, shadow: bool = False
    ) -> None:
        loop = asyncio.get_running_loop()
        self.request_id = request_id
        self.shadow = shadow
        self.rows = len(payloads)
        self.deadline = loop.time() + seconds
        self._seconds = seconds
        self.arrived = time.perf_counter()
        self.waited = 0.0
        self.answer: asyncio.Future[list[bytes]] = loop.create_future()
        self.stages = dict.fromkeys(("queue", "preprocess", "infer", "postprocess"), 0.0)
        self._payloads = payloads
        self._taken = 0
        self._refused: dict[int, Exception] = {}
        self._slots: list[Prepared | None] = [None] * len(payloads)
        self._unprepared = len(payloads)
        self._ready: float | None = None
        self._unbegun = len(payloads)
        self._results: list[bytes] = [b""] * len(payloads)
        self._unfinished = len(payloads)

    @property
    def over(self) -> bool:
        """Whether nobody waits any more: answered, failed, timed out or disconnected."""
        return self.answer.done()

    @property
    def all_taken(self) -> bool:
        """Whether every instance was handed to preprocessing."""
        return self._taken == len(self._payloads)

    @property
    def queue_share(self) -> float:
        """The share of its time that the request has waited in the queue, so far or in all.

        It is that of the row that waited longest; above 1 where it waited past its deadline.
        """
        waited, now = self.stages["queue"], time.perf_counter()
        if not self.all_taken:
            waited = now - self.arrived
        elif self._ready is None:
            waited = self.waited  # it is being preprocessed, or failed there
        elif self._unbegun:
            waited = max(waited, self.waited + now - self._ready)
        return waited / max(self._seconds, LEAST_SECONDS)

    def take(self, most: int) -> Part:
        """Hand out the next instances, at most that many."""
        start = self._taken
        part = Part(self, start, self._payloads[start : start + most])
        self._taken += len(part.payloads)
        return part

    def begin(self, now: float, ready: float) -> None:
        """Note that one of its rows, `ready` since then (s), leaves the queue `now` (s)."""
        self._unbegun -= 1
        self.spent("queue", self.waited + now - ready)

    def spent(self, stage: str, seconds: float) -> None:
        """Record a stage's time; the longest of the request's rows counts."""
        self.stages[stage] = max(self.stages[stage], seconds)

    def prepared(self, part: Part, results: Sequence[Prepared | Exception]) -> list[Prepared]:
        """Take a part's preprocessed instances; return all of them once the last part is in.

        Only then is the request worth inferring: one bad instance fails it, all bad ones named.
        """
        for index, result in enumerate(results, part.start):
            if isinstance(result, Exception):
                self._refused[index] = result
            else:
                self._slots[index] = result
        self._unprepared -= len(results)
        if self._unprepared or self.over:
            return []
        if self._refused:
            self.fail(self._refusal(self._refused))
            return []
        self._ready = time.perf_counter()
        return [slot for slot in self._slots if slot is not None]

    def finish(self, index: int, result: bytes | Exception) -> None:
        """Take the result of one row; the last one answers the request."""
        if self.over:
            return
        if isinstance(result, Exception):
            log.error("postprocess failed", request_id=self.request_id, exc_info=result)
            self.fail(GatewayError("The preprocessor failed on this model's output."))
            return
        self._results[index] = result
        self._unfinished -= 1
        if not self._unfinished:
            self.answer.set_result(self._results)

    def expire(self) -> None:
        """Answer that it took too long."""
        self.fail(DeadlineExceeded(f"No answer within {self._seconds * 1000:.0f} ms."))

    def fail(self, error: GatewayError) -> None:
        """Answer with an error, unless there is an answer already."""
        if not self.over:
            self.answer.set_exception(error)

    def _refusal(self, refused: dict[int, Exception]) -> GatewayError:
        found: dict[InputError, None] = {}  # ordered, and a bad parameter counts once
        for index, error in sorted(refused.items()):
            if not isinstance(error, InvalidInput):
                log.error("preprocess failed", request_id=self.request_id, exc_info=error)
                return GatewayError("The preprocessor failed on this input.")
            for path, reason in error.problems:
                where = None if path.startswith("parameters") else index
                found[InputError(where, path, reason)] = None
        first = next(iter(found))
        place = first.path if first.index is None else f"input {first.index}, {first.path}"
        more = f" ({len(found) - 1} more)" if len(found) > 1 else ""
        return InvalidInstances(f"{place}: {first.reason}{more}", errors=tuple(found)[:MOST_ERRORS])
