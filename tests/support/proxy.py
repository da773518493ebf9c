"""A network that can be slow, or lose everything, between a gateway and a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any


class Proxy:
    """Forwards TCP connections. `delay` is in seconds, of what comes back; `cut` loses all."""

    def __init__(self, target: str, address: str = "127.0.0.1", port: int = 0) -> None:
        self._listens = address, port
        host, _, port_there = target.rpartition(":")
        self._target = host, int(port_there)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.delay = 0.0
        self.cut = False

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        assert self._server
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    async def start(self) -> None:
        """Listen; by default on a free port."""
        self._server = await asyncio.start_server(self._accept, *self._listens)

    async def stop(self) -> None:
        """Close everything."""
        assert self._server
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.cut:  # a new connection gets no answer, either
            self._spawn(self._hold(writer))
            return
        there, back = await asyncio.open_connection(*self._target)
        self._spawn(self._pump(reader, back, delayed=False))
        self._spawn(self._pump(there, writer, delayed=True))

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, delayed: bool
    ) -> None:
        try:
            while data := await reader.read(1 << 16):
                while self.cut:  # TCP would send it again, and again
                    await asyncio.sleep(0.02)
                if delayed and self.delay:
                    await asyncio.sleep(self.delay)
                writer.write(data)
                await writer.drain()
        finally:
            with suppress(Exception):
                writer.close()

    async def _hold(self, writer: asyncio.StreamWriter) -> None:
        try:
            while self.cut:
                await asyncio.sleep(0.02)
        finally:
            writer.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@asynccontextmanager
async def proxied(target: str, address: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Proxy]:
    """Run a proxy in front of a server."""
    proxy = Proxy(target, address, port)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
