"""What a child process prints: bounded on disk, its last lines in memory."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import Self

#: A file beyond this many bytes is set aside as `….1`, in place of the last one.
MOST = 1 << 20
#: Bytes that are kept in memory, read at once, and seconds between two reads: whoever prints faster
#: than a few megabytes a second waits, and holds up nobody else.
TAIL, CHUNK, PAUSE = 8192, 1 << 16, 0.01
#: Seconds to wait for the end of the output of a process that has ended: its children may have it.
END = 0.2


class Output:
    """Copies a stream to a file until it ends. A file that cannot be written loses nothing else."""

    def __init__(
        self,
        stream: asyncio.StreamReader,
        path: Path,
        pipe: asyncio.BaseTransport | None = None,
    ) -> None:
        self._path = path
        self._tail = b""
        self._pipe = pipe
        self._task = asyncio.create_task(self._copy(stream))

    @classmethod
    async def of(cls, pipe: int, path: Path) -> Self:
        """Copy what comes out of a pipe of one's own, given by its file descriptor.

        asyncio waits for a process until its pipes end, too: the children of a dead one keep them.
        """
        loop, stream = asyncio.get_running_loop(), asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(pipe, "rb", 0)
        )
        return cls(stream, path, transport)

    async def last(self, lines: int) -> str:
        """Return the last lines of a process that has ended, as one line."""
        with suppress(TimeoutError, asyncio.CancelledError):
            await asyncio.wait_for(self._task, END)
        return " ".join(self._tail.decode(errors="replace").strip().splitlines()[-lines:])

    def close(self) -> None:
        """Stop copying."""
        self._task.cancel()
        if self._pipe:
            self._pipe.close()

    async def _copy(self, stream: asyncio.StreamReader) -> None:
        while chunk := await stream.read(CHUNK):
            self._tail = (self._tail + chunk)[-TAIL:]
            with suppress(OSError):
                self._write(chunk)
            await asyncio.sleep(PAUSE)

    def _write(self, chunk: bytes) -> None:
        with self._path.open("ab") as file:
            file.write(chunk)
            size = file.tell()
        if size > MOST:
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
