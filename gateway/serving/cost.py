"""Learns what a call to Triton costs, so that calls can be made as large as pays."""

from __future__ import annotations

import math
import time
from collections import deque


class Call:
    """One call under way; `begun` (s) is set once an instance of the model works on it."""

    begun: float | None = None


class Cost:
    """Fits seconds = fixed + slope × padded tokens to what calls of each size take when fast.

    When fast, as the rest is not the call's: cores that other processes held, a busy event loop.
    A call that is sent while all instances are busy begins when the next call ends: what it
    waits in Triton's queue is not its cost either.
    """

    #: Share of a size's calls that are faster than what is taken for fast, and how far one call
    #: moves that.
    FAST, STEP = 0.2, 0.1
    #: Sizes an octave; calls of a size before it counts.
    SIZES, FEWEST = 2, 5
    #: Before anything is known, and the bounds of what is believed, in tokens. A MiniLM of one
    #: CPU thread has about 4, to which the call itself adds as many.
    FIRST, LEAST, MOST = 10.0, 2.0, 1024.0

    def __init__(self) -> None:
        self._waiting: deque[Call] = deque()
        self._running = 0
        self._sizes: dict[int, tuple[int, float, float]] = {}  # calls, tokens, seconds
        self.overhead = self.FIRST

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
            self._observe(tokens, now - call.begun)

    def _observe(self, tokens: int, seconds: float) -> None:
        size = round(self.SIZES * math.log2(tokens))
        calls, mean, fast = self._sizes.get(size, (0, float(tokens), seconds))
        mean += self.STEP * (tokens - mean)
        fast *= 1 + self.STEP * (self.FAST if seconds > fast else self.FAST - 1)
        self._sizes[size] = calls + 1, mean, fast
        self.overhead = self._fitted()

    def _fitted(self) -> float:
        """Return what a call costs beside its tokens, in tokens."""
        points = [(x, y) for calls, x, y in self._sizes.values() if calls >= self.FEWEST]
        count = len(points)
        if count < 2:  # noqa: PLR2004 - one size alone tells nothing
            return self.FIRST
        middle = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
        slope = sum((x - middle[0]) * (y - middle[1]) for x, y in points) / sum(
            (x - middle[0]) ** 2 for x, _ in points
        )
        if slope <= 0:
            return self.MOST
        return min(max(middle[1] / slope - middle[0], self.LEAST), self.MOST)
