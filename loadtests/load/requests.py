"""Every request of a stream, as bytes: the parts are written once, before the clock starts."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from loadtests.load import protocol
from loadtests.load.plan import Stream, Target

#: So many draws of a target are made before they repeat.
DRAWS = 10_007


class Request(NamedTuple):
    """What is sent, to whom, and the number of its first instance."""

    data: bytes
    target: Target
    first: int


class Requests:
    """An endless iterator; together any run of them carries each instance, in order."""

    def __init__(self, stream: Stream, host: str) -> None:
        inputs = msgspec.json.decode(Path(stream.inputs).read_bytes(), type=list[msgspec.Raw])
        self._bodies = [
            _body(stream, [inputs[row % len(inputs)] for row in range(first, first + stream.rows)])
            for first in range(0, len(inputs), stream.rows)
        ]
        self._rows = stream.rows
        chance = random.Random(stream.seed)  # noqa: S311 - the same draws for each server
        heads = [(target, _head(stream, target, host)) for target in stream.targets]
        self._heads = itertools.cycle(chance.choices(heads, k=DRAWS) if len(heads) > 1 else heads)
        start = stream.offset // stream.rows
        self._numbers = (number % len(self._bodies) for number in itertools.count(start))

    def next(self) -> Request:
        """Return the next one."""
        number = next(self._numbers)
        target, head = next(self._heads)
        return Request(head + self._bodies[number], target, number * self._rows)


def _head(stream: Stream, target: Target, host: str) -> bytes:
    path = protocol.path(stream.protocol, target.model, stream.rows)
    release = f"X-Release: {target.stamps.release}\r\n" if target.stamps else ""
    return (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{release}"
    ).encode()


def _body(stream: Stream, rows: Sequence[msgspec.Raw]) -> bytes:
    body = msgspec.json.encode(protocol.content(stream.protocol, rows))
    return f"Content-Length: {len(body)}\r\n\r\n".encode() + body
