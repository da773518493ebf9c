"""Large bodies share a bounded memory: what does not fit is refused, by its head if that tells."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import pytest
from tornado.netutil import bind_sockets
from tornado.web import Application

from gateway.errors import Overloaded
from gateway.http import base, server
from gateway.http.base import SMALL, BodyRoom
from gateway.telemetry.logs import RequestLog, Stream

LIMIT = 4 * SMALL
Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Ends]]


class Length(base.Bodied):
    limit = 3 * SMALL

    def initialize(self, room: BodyRoom) -> None:
        self.room = room

    def prepare_large(self) -> None:
        if self.path_args[0] == "full":
            raise Overloaded("full", retry_after=7)

    def post(self, model: str) -> None:
        del model
        self.write_json(len(self.body()))


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    server.install_loop()
    log_function = partial(base.record, RequestLog(Stream(io.BytesIO), logging.INFO))
    routes = [(r"/([a-z]+)", Length, {"room": BodyRoom(LIMIT)})]
    bounds = server.Bounds(connections=100, idle=60, body=60, write=60)
    serving = server.Server(Application(routes, log_function=log_function), bounds)
    sockets = bind_sockets(0, "127.0.0.1")
    serving.add_sockets(sockets)
    ends: list[Ends] = []

    async def connected() -> Ends:
        ends.append(await asyncio.open_connection(*sockets[0].getsockname()))
        return ends[-1]

    try:
        async with asyncio.timeout(30):
            yield connected
    finally:
        for _, writer in ends:
            writer.close()
        serving.stop()
        await serving.close_all_connections()


def head(model: str, length: int | None, more: str = "") -> bytes:
    framing = f"Content-Length: {length}" if length else "Transfer-Encoding: chunked"
    return f"POST /{model} HTTP/1.1\r\nHost: x\r\n{framing}\r\n{more}\r\n".encode()


def chunk(size: int) -> bytes:
    return b"%x\r\n" % size + b"x" * size + b"\r\n"


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
    body = await reader.readexactly(int(headers["content-length"]))
    return int(lines[0].split()[1]), headers, body


async def refused(reader: asyncio.StreamReader) -> str:
    status, headers, body = await answer(reader)
    assert (status, int(headers["retry-after"])) == (429, 1)
    return str(json.loads(body)["detail"])


async def test_a_body_without_room_is_refused_by_its_head(connect: Connect) -> None:
    held = await connect()
    held[1].write(head("m", 2 * SMALL) + b"x" * SMALL)  # half of all, and half of it has arrived
    await asyncio.sleep(0.1)
    other = await connect()
    other[1].write(head("m", SMALL + 1))
    other[1].write(b"x" * (SMALL + 1))
    told = await refused(other[0])
    assert f"{2 * SMALL} bytes, {2 * SMALL} of them for this model; {SMALL + 1} more" in told
    other[1].write(head("m", SMALL) + b"x" * SMALL)  # a small one needs no room
    assert (await answer(other[0]))[2] == str(SMALL).encode()
    other[1].write(head("n", 2 * SMALL) + b"x" * 2 * SMALL)  # another model has its half
    assert (await answer(other[0]))[2] == str(2 * SMALL).encode()
    held[1].write(b"x" * SMALL)
    assert (await answer(held[0]))[2] == str(2 * SMALL).encode()
    other[1].write(head("m", 2 * SMALL) + b"x" * 2 * SMALL)  # now there is room
    assert (await answer(other[0]))[0] == 200


async def test_a_body_of_unknown_size_is_refused_once_it_has_arrived(connect: Connect) -> None:
    held = await connect()
    held[1].write(head("m", None) + 2 * chunk(SMALL))
    await asyncio.sleep(0.1)
    other = await connect()
    other[1].write(head("m", None) + 2 * chunk(SMALL) + b"0\r\n\r\n")
    await refused(other[0])
    held[1].write(b"0\r\n\r\n")
    assert (await answer(held[0]))[2] == str(2 * SMALL).encode()


async def test_a_client_that_leaves_makes_room(connect: Connect) -> None:
    _, leaving = await connect()
    leaving.write(head("m", 2 * SMALL) + b"x" * SMALL)
    await asyncio.sleep(0.1)
    leaving.close()
    reader, writer = await connect()
    for _ in range(50):
        writer.write(head("m", 2 * SMALL) + b"x" * 2 * SMALL)
        if (await answer(reader))[0] == 200:
            return
        await asyncio.sleep(0.1)
    pytest.fail("its room was never given back")


async def test_a_handler_can_refuse_a_large_body_by_its_head(connect: Connect) -> None:
    reader, writer = await connect()
    writer.write(head("full", SMALL + 1) + b"x" * (SMALL + 1))
    status, headers, _ = await answer(reader)
    assert (status, headers["retry-after"]) == (429, "7")
    writer.write(head("full", 5) + b"small")
    assert (await answer(reader))[2] == b"5"


async def test_a_client_that_asks_before_it_sends_is_refused_at_once(connect: Connect) -> None:
    reader, writer = await connect()
    writer.write(head("full", SMALL + 1, "Expect: 100-continue\r\n"))
    status, headers, _ = await answer(reader)
    assert (status, headers["retry-after"], headers["connection"]) == (429, "7", "close")
    assert await reader.read() == b""


async def test_a_body_beyond_the_limit_takes_no_more_room_than_the_limit(connect: Connect) -> None:
    reader, writer = await connect()
    writer.write(head("m", 5 * SMALL) + b"x" * 5 * SMALL)
    status, _, body = await answer(reader)
    assert (status, json.loads(body)["code"]) == (413, "body_too_large")
    writer.write(head("m", 2 * SMALL) + b"x" * 2 * SMALL)
    assert (await answer(reader))[0] == 200
