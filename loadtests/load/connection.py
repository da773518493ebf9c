"""One HTTP/1.1 connection that is kept alive, with one request at a time on it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import NamedTuple, cast

from loadtests.load.protocol import JSON_LENGTH

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_JSON_LENGTH = re.compile(rf"\r\n{JSON_LENGTH}: *(\d+)".encode(), re.IGNORECASE)


class Answer(NamedTuple):
    """A whole answer. `json` is how much of the body is JSON (Triton: numbers follow as bytes).

    `head` is kept of failures alone.
    """

    status: int
    body: bytes
    json: int
    head: bytes = b""


class Connection(asyncio.Protocol):
    """Calls `answered` with each whole answer, or with None where the server hung up instead."""

    def __init__(self) -> None:
        self.answered: Callable[[Answer | None], None] | None = None
        self.open = False
        self._buffer = bytearray()
        self._whole = self._start = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take what TCP gives."""
        self._transport = cast(asyncio.Transport, transport)
        self.open = True

    def send(self, data: bytes, answered: Callable[[Answer | None], None]) -> None:
        """Send one request; its answer goes to `answered`."""
        self.answered = answered
        self._transport.write(data)

    def close(self) -> None:
        """Close it."""
        self.open = False
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Take the next part of an answer; hand it on when it is whole."""
        self._buffer += data
        if not self._whole:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            found = _LENGTH.search(self._buffer, 0, end)
            if not found:
                raise ValueError(f"no Content-Length: {bytes(self._buffer[:end])!r}")
            self._start = end + 4
            self._whole = self._start + int(found[1])
        if len(self._buffer) < self._whole:
            return
        whole, start = bytes(self._buffer), self._start
        self._buffer.clear()
        self._whole = 0
        answered, self.answered = self.answered, None
        if answered:
            json = _JSON_LENGTH.search(whole, 0, start)
            length = int(json[1]) if json else len(whole) - start
            status = int(whole[9:12])
            head = whole[:start] if status >= 400 else b""  # noqa: PLR2004
            answered(Answer(status, whole[start:], length, head))

    def connection_lost(self, _: Exception | None) -> None:
        """Tell whoever waits for an answer."""
        self.open = False
        answered, self.answered = self.answered, None
        if answered:
            answered(None)
