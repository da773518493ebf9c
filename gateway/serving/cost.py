"""Learns what a call to Triton costs, so that calls can be made as large as pays."""

from __future__ import annotations

import time
from collections import deque


class Call:
    """One call under way; `begun` (s) is set once an instance of the model works on it."""

    begun: float | None = None


class Cost:
    """Fits seconds = fixed + slope × padded tokens to recent calls, by weighted least squares.

    A call that is sent while all instances are busy begins when the next call ends: what it
    waits in Triton's queue is not its cost. With several gateways on one Triton the costs are
    overestimated, both in the same way.
    """

    KEEP = 0.99
    #: Before anything is known, and the most that is believed, in tokens.
    FIRST, MOST = 24.0, 256.0
    #: Calls seen before they are believed.
    FEWEST = 20.0

    def __init__(self) -> None:
        self._waiting: deque[Call] = deque()
        self._running = 0
        self._sums = (0.0, 0.0, 0.0, 0.0, 0.0)

    def begin(self, instances: int) -> Call:
        """Note that a call is sent to a model of so many instances."""
        call = Call()
        if self._running < instances:
            self._running += 1
            call.begun = time.perf_counter()
        else:
            self._waiting.append(call)
        return call

    def end(self, call: Call, tokens: int) -> None:
        """Note that a call has ended, of so many padded tokens; 0 where it failed."""
        now = time.perf_counter()
        if call.begun is None:
            self._waiting.remove(call)  # it overtook another
        elif self._waiting:
            self._waiting.popleft().begun = now
        else:
            self._running -= 1
        if call.begun is not None and tokens:
            seconds = now - call.begun
            new = (1.0, tokens, seconds, tokens * tokens, tokens * seconds)
            n, x, y, xx, xy = (
                self.KEEP * old + item for old, item in zip(self._sums, new, strict=True)
            )
            self._sums = n, x, y, xx, xy

    @property
    def overhead(self) -> float:
        """What a call costs beside its tokens, in tokens."""
        n, x, y, xx, xy = self._sums
        spread = n * xx - x * x
        if n < self.FEWEST or spread <= 1e-6 * xx:  # calls of a single size tell nothing
            return self.FIRST
        slope = (n * xy - x * y) / spread
        if slope <= 0:
            return self.MOST
        return min(max((y - slope * x) / n / slope, 1.0), self.MOST)
