"""Pauses between attempts that seem to be in vain."""

from __future__ import annotations

import time
from collections.abc import Hashable


class Pauses:
    """A pause after each attempt of a kind: doubled each time, from `first` to `longest` seconds.

    After `quiet` seconds (or the last pause, if longer) since the end of the last pause, they begin
    with `first` again.
    """

    def __init__(self, first: float, longest: float, quiet: float) -> None:
        self._first = first
        self._longest = longest
        self._quiet = quiet
        self._pauses: dict[
            Hashable, tuple[float, float]
        ] = {}  # the end and the length of the last one

    def left(self, key: Hashable) -> float:
        """Return the seconds until the pause ends; 0 if there is none."""
        end, _ = self._pauses.get(key, (0.0, 0.0))
        return max(end - time.monotonic(), 0.0)

    def begin(self, key: Hashable) -> float:
        """Begin a pause; return its length."""
        now = time.monotonic()
        end, length = self._pauses.get(key, (0.0, 0.0))
        again = length and now - end < max(self._quiet, length)
        length = min(2 * length, self._longest) if again else self._first
        self._pauses[key] = now + length, length
        return length
