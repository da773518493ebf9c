"""A body that does not come loses its connection; one that comes in time does not."""

from __future__ import annotations

import asyncio

import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from gateway.http import base

SECONDS = 0.3
HEAD = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"


class Echo(base.Bodied):
    limit = 100

    async def post(self) -> None:
        body = self.body()
        await asyncio.sleep(2 * SECONDS)  # an answer may take longer than the body may
        self.finish(body)


async def test_a_slow_body_loses_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "BODY_SECONDS", SECONDS)
    server = HTTPServer(Application([("/echo", Echo)], log_function=base.record))
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    address = sockets[0].getsockname()
    try:
        async with asyncio.timeout(30):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(HEAD + b"ab")
            assert await reader.read() == b""
            writer.close()
            reader, writer = await asyncio.open_connection(*address)
            writer.write(HEAD + b"ab")
            await asyncio.sleep(SECONDS / 3)
            writer.write(b"cd")
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(4) == b"abcd"
            writer.close()
    finally:
        server.stop()
        await server.close_all_connections()
