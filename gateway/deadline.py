"""A deadline: one absolute moment, from the request's header to the call to Triton."""

from __future__ import annotations

import time
from typing import NamedTuple, Self

#: The shortest timeout passed to gRPC, in seconds: 0 would mean no timeout.
SHORTEST = 0.001


class Deadline(NamedTuple):
    """`at` is the moment, in seconds of `time.monotonic`; `seconds` is what the client allowed."""

    at: float
    seconds: float

    @classmethod
    def after(cls, seconds: float) -> Self:
        """Return the deadline `seconds` from now."""
        return cls(time.monotonic() + seconds, seconds)

    @property
    def left(self) -> float:
        """Seconds until the deadline, never less than `SHORTEST`."""
        return max(self.at - time.monotonic(), SHORTEST)
