"""Bounds the calls to Triton in flight over all models of one gateway.

When every model calls at once, the calls share the cores: all are late, and each carries only the
few rows that its batcher had by then. With just enough calls in flight to keep the cores busy, the
other rows wait here, gather, and share calls. Batchers take turns, a call each, so no model crowds
out another; a call that takes long gives its permit back early, so nothing waits for it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

#: Seconds after which a call no longer counts, though it is still in flight.
LONG_CALL = 0.1


class Permit:
    """Allows one call, until the call ends or has taken long."""

    def __init__(self, give_back: Callable[[], None]) -> None:
        self._give_back: Callable[[], None] | None = give_back
        self._timer = asyncio.get_running_loop().call_later(LONG_CALL, self.release)

    def release(self) -> None:
        """Give the permit back, once; the next in line proceeds at once."""
        if give_back := self._give_back:
            self._give_back = None
            self._timer.cancel()
            give_back()


class CallLimiter:
    """Hands out at most `most` permits at a time; any number where that is 0."""

    def __init__(self, most: int) -> None:
        self._free: float = most or math.inf
        self._waiting: dict[Callable[[], None], None] = {}

    def acquire(self, proceed: Callable[[], None]) -> Permit | None:
        """Return a permit, whose `release` must follow.

        None where there is none to have; then `proceed` is called once there is. A caller that
        asks again meanwhile keeps its place in line.
        """
        if self._free <= 0:
            self._waiting.setdefault(proceed)
            return None
        self._free -= 1
        return Permit(self._returned)

    def forget(self, proceed: Callable[[], None]) -> None:
        """Take `proceed` out of the line."""
        self._waiting.pop(proceed, None)

    def _returned(self) -> None:
        self._free += 1
        while self._free > 0 and self._waiting:
            proceed = next(iter(self._waiting))
            del self._waiting[proceed]
            proceed()
