"""One HTTP exchange within one process: a client, Tornado, a handler that answers at once.

What a bare handler costs is Tornado and the client; what the gateway's adds to it is its own:
ids, limits, metrics and the request log.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from gateway.http.base import Bodied, record
from gateway.http.server import Bounds, Server
from gateway.settings import Settings
from gateway.telemetry import logs

#: As long as a MiniLM embedding is as JSON.
ANSWER = b'{"output":"' + b"x" * 8000 + b'"}'
REQUEST = (
    b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 25\r\n\r\n" + b'{"input":"a short text."}'
)
Exchange = Callable[[], Awaitable[None]]


class Bare(RequestHandler):
    """Only Tornado."""

    def post(self) -> None:
        """Answer."""
        self.set_header("Content-Type", "application/json")
        self.finish(ANSWER)


class Own(Bodied):
    """The gateway's base of every handler."""

    limit = 1 << 20

    def post(self) -> None:
        """Take the body and answer."""
        self.body()
        self.set_header("Content-Type", "application/json")
        self.finish(ANSWER)


@asynccontextmanager
async def exchanges(folder: Path) -> AsyncIterator[tuple[Exchange, Exchange]]:
    """Return the exchange with the bare handler and the one with the gateway's."""
    given: dict[str, Any] = {"log_file": folder / "log"}
    settings = Settings(**given)
    requests = logs.configure(settings)
    bare = Application([(r"/.*", Bare)], log_function=lambda _: None)
    own = Application([(r"/.*", Own)], log_function=partial(record, requests))
    servers, found, writers = [], [], []
    for server in (HTTPServer(bare), Server(own, Bounds.of(settings))):
        (bound, *_) = bind_sockets(0, "127.0.0.1")
        server.add_sockets([bound])
        reader, writer = await asyncio.open_connection(*bound.getsockname())
        servers.append(server)
        writers.append(writer)
        found.append(_exchange(reader, writer))
    try:
        yield found[0], found[1]
    finally:
        for writer in writers:
            writer.close()
        for server in servers:
            server.stop()


def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Exchange:
    async def once() -> None:
        writer.write(REQUEST)
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(len(ANSWER))

    return once
