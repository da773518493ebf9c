"""Bounds the calls to Triton in flight over all models of one gateway.

When every model calls at once, the calls compete for the cores: all are late, and each carries only
the few rows that its batcher had by then. With just enough calls in flight to keep the cores busy,
the other rows gather and share calls. Batchers take turns, one call each, so no model crowds out
another; a long call returns its permit early, so that nothing waits for it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

#: Seconds after which a call no longer counts, though it is still in flight.
LONG_CALL = 0.1


class Permit:
    """Allows one call, until it ends or has run for long."""

    def __init__(self, give_back: Callable[[], None]) -> None:
        self._give_back: Callable[[], None] | None = give_back
        self._timer = asyncio.get_running_loop().call_later(LONG_CALL, self.release)

    def release(self) -> None:
        """Return the permit, once; the next in line proceeds immediately."""
        if give_back := self._give_back:
            self._give_back = None
            self._timer.cancel()
            give_back()


class CallLimiter:
    """Hands out at most `most` permits at a time; 0 means no limit."""

    def __init__(self, most: int) -> None:
        self._free: float = most or math.inf
        self._waiting: dict[Callable[[], None], None] = {}

    def acquire(self, proceed: Callable[[], None]) -> Permit | None:
        """Return a permit, which must be released, or None if all are taken.

        In that case `proceed` is called once there may be one. A caller that asks again keeps its
        place in line.
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
