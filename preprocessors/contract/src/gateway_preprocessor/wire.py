"""What a gateway and a worker say to each other over a Unix socket.

A frame is a length (4 bytes, big-endian) and a MessagePack text. Arrays travel as dtype, shape
and raw C-ordered bytes; they are read without a copy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from gateway_preprocessor.description import Description
from gateway_preprocessor.errors import InvalidInput, Problem
from gateway_preprocessor.goldens import Golden
from gateway_preprocessor.preprocessor import Prepared
from gateway_preprocessor.runner import Payload

#: Bytes before each frame that give its length.
HEAD = 4
#: A longer frame is a broken peer, not a request.
LONGEST = 1 << 30


class Array(msgspec.Struct, array_like=True, frozen=True):
    """A numpy array."""

    dtype: str
    shape: tuple[int, ...]
    data: memoryview

    @classmethod
    def of(cls, array: NDArray[Any]) -> Array:
        """Wrap `array`; copies it only where it is not contiguous."""
        flat = np.ascontiguousarray(array).reshape(-1)
        return cls(array.dtype.name, array.shape, flat.view(np.uint8).data)

    def array(self) -> NDArray[Any]:
        """Return a read-only view of the bytes."""
        return np.frombuffer(self.data, self.dtype).reshape(self.shape)


class Prepare(msgspec.Struct, array_like=True, tag="prepare", frozen=True):
    """Preprocess these payloads."""

    id: int
    payloads: list[Payload]


class Finish(msgspec.Struct, array_like=True, tag="finish", frozen=True):
    """Postprocess stacked outputs (rows, …), one context a row."""

    id: int
    outputs: dict[str, Array]
    contexts: Sequence[Any]


class Introduce(msgspec.Struct, array_like=True, tag="introduce", frozen=True):
    """Say who you are."""

    id: int


Request = Prepare | Finish | Introduce


class Ready(msgspec.Struct, array_like=True, tag="ready", frozen=True):
    """One preprocessed instance."""

    tensors: dict[str, Array]
    context: Any


class Refused(msgspec.Struct, array_like=True, tag="refused", frozen=True):
    """One instance whose sender can mend it: (path, reason) pairs."""

    problems: list[tuple[str, str]]


class Failed(msgspec.Struct, array_like=True, tag="failed", frozen=True):
    """One instance on which the preprocessor failed; the text is for the log."""

    reason: str


class Prepareds(msgspec.Struct, array_like=True, tag="prepared", frozen=True):
    """Answers Prepare."""

    id: int
    items: list[Ready | Refused | Failed]


class Results(msgspec.Struct, array_like=True, tag="results", frozen=True):
    """Answers Finish: JSON text a row, or what failed."""

    id: int
    items: list[bytes | Failed]


class Identity(msgspec.Struct, array_like=True, tag="identity", frozen=True):
    """Answers Introduce: what runs here, and every installed distribution with its version."""

    id: int
    pid: int
    distribution: str
    python: str
    installed: dict[str, str]
    description: Description
    goldens: list[Golden]


Reply = Prepareds | Results | Identity


def prepared_items(items: Sequence[Prepared | Exception]) -> list[Ready | Refused | Failed]:
    """Write preprocessed instances down for the wire."""
    return [_item(item) for item in items]


def _item(item: Prepared | Exception) -> Ready | Refused | Failed:
    if isinstance(item, Prepared):
        tensors = {name: Array.of(array) for name, array in item.tensors.items()}
        return Ready(tensors, item.context)
    if isinstance(item, InvalidInput):
        return Refused([(problem.path, problem.reason) for problem in item.problems])
    return Failed(repr(item))


def prepared_of(item: Ready | Refused | Failed) -> Prepared | Exception:
    """Read one preprocessed instance back."""
    if isinstance(item, Ready):
        tensors = {name: array.array() for name, array in item.tensors.items()}
        return Prepared(tensors, item.context)
    if isinstance(item, Refused):
        return InvalidInput.of([Problem(*problem) for problem in item.problems])
    return WorkerFailure(item.reason)


def arrays_of(outputs: Mapping[str, Array]) -> dict[str, NDArray[Any]]:
    """Read named arrays back."""
    return {name: array.array() for name, array in outputs.items()}


class WorkerFailure(RuntimeError):
    """A preprocessor failed inside its worker; the text is its exception, for the log."""


class Frames(asyncio.Protocol):
    """One end of a connection: cuts what arrives into frames, and sends frames.

    `received` is called with each frame's text, `lost` once when the connection ends. Nothing is
    read while the other end is slow to take what is sent to it.
    """

    def __init__(self, received: Callable[[memoryview], None], lost: Callable[[], None]) -> None:
        self._received = received
        self._lost = lost
        self._chunks: list[bytes] = []
        self._size = 0
        self._needed = HEAD
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin (asyncio's hook)."""
        self._transport = cast("asyncio.Transport", transport)  # what a stream socket has

    def connection_lost(self, exc: Exception | None) -> None:
        """End (asyncio's hook)."""
        del exc
        self._transport = None
        self._lost()

    def pause_writing(self) -> None:
        """Read no more questions while the answers pile up (asyncio's hook)."""
        if self._transport:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on (asyncio's hook)."""
        if self._transport:
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Take the next bytes (asyncio's hook); a frame that is nonsense ends the connection."""
        self._chunks.append(data)
        self._size += len(data)
        if self._size < self._needed:
            return
        whole = memoryview(b"".join(self._chunks))
        start = 0
        while len(whole) - start >= HEAD:
            length = int.from_bytes(whole[start : start + HEAD])
            end = start + HEAD + length
            if length > LONGEST:
                self.close()
                return
            if end > len(whole):
                self._needed = end - start
                break
            self._received(whole[start + HEAD : end])
            start = end
        else:
            self._needed = HEAD
        self._chunks = [bytes(whole[start:])]
        self._size = len(whole) - start

    def send(self, message: Request | Reply) -> None:
        """Queue one frame. Raises ConnectionError where the connection has ended."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionError("the connection has ended")
        body = msgspec.msgpack.encode(message)
        self._transport.write(len(body).to_bytes(HEAD) + body)

    def close(self) -> None:
        """End the connection; what is queued is still sent."""
        if self._transport:
            self._transport.close()
