"""Which lane may call Triton next, where all models together have more to do than the cores.

Calls that all go at once share the cores, all of them late, and each with the few rows that its
lane had by then. With just enough calls in flight to keep the cores busy, the others' rows wait
here instead, gather, and share calls. Lanes take turns, a call each, so no model crowds another
out; and a call that takes long gives its turn back before it ends, so that none waits for it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

#: Seconds after which a call does not count any more, though it is still in flight.
LONG_CALL = 0.1


class Turn:
    """One call's turn, until it ends or has taken long."""

    def __init__(self, give_back: Callable[[], None]) -> None:
        self._give_back: Callable[[], None] | None = give_back
        self._timer = asyncio.get_running_loop().call_later(LONG_CALL, self.end)

    def end(self) -> None:
        """Give the turn back, once; whoever waits for it goes on at once."""
        if give_back := self._give_back:
            self._give_back = None
            self._timer.cancel()
            give_back()


class Turns:
    """The turns of one gateway: `most` at a time, or as many as wanted where that is 0."""

    def __init__(self, most: int) -> None:
        self._free: float = most or math.inf
        self._waiting: dict[Callable[[], None], None] = {}

    def free(self, proceed: Callable[[], None]) -> bool:
        """Whether a call may begin now; if not, `proceed` is called when its turn has come.

        Whoever asks again meanwhile keeps its place.
        """
        if self._free <= 0:
            self._waiting.setdefault(proceed)
        return self._free > 0

    def forget(self, proceed: Callable[[], None]) -> None:
        """Call `proceed` no more."""
        self._waiting.pop(proceed, None)

    def begin(self) -> Turn:
        """Take one that is free; its `end` must follow."""
        self._free -= 1
        return Turn(self._end)

    def _end(self) -> None:
        self._free += 1
        while self._free > 0 and self._waiting:
            proceed = next(iter(self._waiting))
            del self._waiting[proceed]
            proceed()
