"""Who keeps the gateway waiting loses the connection, others do not; connections are bounded."""

from __future__ import annotations

import asyncio
import gc
import io
import logging
import os
import resource
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import ClassVar

import pytest
import pytest_asyncio
import structlog
from tornado.netutil import bind_sockets
from tornado.web import Application

from gateway.http import base, server
from gateway.telemetry.logs import RequestLog, Stream

# A loop of this module's own: another test may have made Tornado use a loop other than ours.
pytestmark = pytest.mark.asyncio(loop_scope="module")
SECONDS = 0.3
LARGE = 32 << 20  # more than the kernel buffers
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


class Large(base.Handler):
    def get(self) -> None:
        self.finish(b"x" * LARGE)


@pytest.fixture
def bounds() -> server.Bounds:
    """The server's bounds; a test may parametrise them."""
    return server.Bounds(connections=100, idle=60, body=SECONDS, write=SECONDS)


@pytest_asyncio.fixture(loop_scope="module")
async def connect(monkeypatch: pytest.MonkeyPatch, bounds: server.Bounds) -> AsyncIterator[Connect]:
    monkeypatch.setattr(server, "LOOK_SECONDS", SECONDS / 10)
    server.install_loop()
    Echo.lost = asyncio.Event()
    requests = RequestLog(Stream(io.BytesIO), logging.INFO)
    log_function = partial(base.record, requests)
    routes = [("/echo", Echo), ("/large", Large)]
    serving = server.Server(Application(routes, log_function=log_function), bounds)
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


@pytest.mark.parametrize("bounds", [server.Bounds(100, idle=SECONDS, body=60, write=60)])
@pytest.mark.parametrize("sent", [b"", HEAD[:20], HEAD + b"abcd"])
async def test_an_idle_connection_is_closed(connect: Connect, sent: bytes) -> None:
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


async def test_a_slow_reader_loses_its_connection(connect: Connect) -> None:
    reader, writer = await connect()
    writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
    await asyncio.sleep(4 * SECONDS)
    with pytest.raises(asyncio.IncompleteReadError):
        await reader.readexactly(LARGE)
    writer.close()


@pytest.mark.parametrize("bounds", [server.Bounds(2, idle=60, body=60, write=60)])
async def test_connections_beyond_the_bound_are_closed_at_once(connect: Connect) -> None:
    before = server.metrics.CONNECTIONS_REFUSED._value.get()
    kept = [await connect() for _ in range(2)]
    reader, writer = await connect()
    assert await reader.read() == b""
    writer.close()
    assert server.metrics.CONNECTIONS_REFUSED._value.get() == before + 1
    kept[0][1].close()
    await asyncio.sleep(SECONDS)  # there is room again
    kept.append(await connect())
    for reader, writer in kept[1:]:
        writer.write(HEAD + b"abcd")
        assert await echoes(reader)
        writer.close()


async def test_without_descriptors_new_connections_wait(connect: Connect) -> None:
    kept = await connect()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    client = socket.socket()
    client.setblocking(False)
    address = kept[1].get_extra_info("peername")
    gc.collect()  # or a descriptor may become free meanwhile
    os.close(lowest := os.dup(client.fileno()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        with structlog.testing.capture_logs() as logs:
            await asyncio.get_running_loop().sock_connect(client, address)
            await asyncio.sleep(3 * server.ACCEPT_PAUSE)
        told = [entry for entry in logs if "no descriptors" in entry["event"]]
        assert 1 <= len(told) <= 5, logs  # once a pause, not as often as the loop can
        kept[1].write(HEAD + b"abcd")
        assert await echoes(kept[0])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    reader, writer = await asyncio.open_connection(sock=client)
    writer.write(HEAD + b"abcd")
    assert await echoes(reader)
    writer.close()
    kept[1].close()
