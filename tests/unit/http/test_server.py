"""Who keeps the gateway waiting for a head or a body loses the connection; others do not."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import ClassVar

import pytest
import structlog
from tornado.netutil import bind_sockets
from tornado.web import Application

from gateway.http import base, server
from gateway.telemetry.logs import RequestLog

SECONDS = 0.3
HEAD = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"
Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


class Echo(base.Bodied):
    limit = 100
    lost: ClassVar[asyncio.Event]

    def on_connection_close(self) -> None:
        self.lost.set()

    async def post(self) -> None:
        body = self.body()
        await asyncio.sleep(1.5 * SECONDS)  # an answer may take longer than the body may
        self.finish(body)


@pytest.fixture
async def connect(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Connect]:
    monkeypatch.setattr(server, "BODY_SECONDS", SECONDS)
    monkeypatch.setattr(server, "LOOK_SECONDS", SECONDS / 10)
    Echo.lost = asyncio.Event()
    requests = RequestLog(structlog.BytesLogger(io.BytesIO()), logging.INFO)
    log_function = partial(base.record, requests)
    serving = server.Server(Application([("/echo", Echo)], log_function=log_function))
    sockets = bind_sockets(0, "127.0.0.1")
    serving.add_sockets(sockets)
    try:
        async with asyncio.timeout(30):
            yield lambda: asyncio.open_connection(*sockets[0].getsockname())
    finally:
        serving.stop()
        await serving.close_all_connections()


async def echoes(reader: asyncio.StreamReader) -> bool:
    head = await reader.readuntil(b"\r\n\r\n")
    return head.startswith(b"HTTP/1.1 200") and await reader.readexactly(4) == b"abcd"


async def test_a_slow_body_loses_its_connection(connect: Connect) -> None:
    reader, writer = await connect()
    writer.write(HEAD + b"ab")
    assert await reader.read() == b""
    writer.close()


async def test_a_body_in_time_is_answered_and_the_connection_kept(connect: Connect) -> None:
    reader, writer = await connect()
    for _ in range(2):
        writer.write(HEAD + b"ab")
        await asyncio.sleep(SECONDS / 3)
        writer.write(b"cd")
        assert await echoes(reader)
    await asyncio.sleep(1.5 * SECONDS)  # longer than a body may take: nothing is owed
    writer.write(HEAD + b"abcd")
    assert await echoes(reader)
    writer.close()


@pytest.mark.parametrize("sent", [b"", HEAD[:20], HEAD + b"abcd"])
async def test_an_idle_connection_is_closed(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(server, "IDLE_SECONDS", SECONDS)
    reader, writer = await connect()
    writer.write(sent)
    if sent.endswith(b"abcd"):
        assert await echoes(reader)
    assert await reader.read() == b""
    writer.close()


async def test_requests_that_come_too_early_are_answered_in_turn(connect: Connect) -> None:
    reader, writer = await connect()
    writer.write(2 * (HEAD + b"abcd"))
    for _ in range(3):
        await asyncio.sleep(SECONDS / 3)  # the first one is being answered
        writer.write(HEAD + b"abcd")
    for _ in range(5):
        assert await echoes(reader)
    writer.close()


@pytest.mark.parametrize("early", [0, 1])
async def test_a_client_that_goes_is_noticed(connect: Connect, early: int) -> None:
    reader, writer = await connect()
    for _ in range(2):
        writer.write((1 + early) * (HEAD + b"abcd"))
        for _ in range(1 + early):
            assert await echoes(reader)
    assert not Echo.lost.is_set()
    writer.write(HEAD + b"abcd")
    await asyncio.sleep(SECONDS / 3)
    writer.close()
    await Echo.lost.wait()
