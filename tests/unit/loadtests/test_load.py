"""The load generator's loops, on a server that stalls, rejects, or hangs up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from loadtests.load.generator import measure
from loadtests.load.plan import Plan, Stream, Tally, Target
from loadtests.load.requests import Requests

RIGHT = b'{"output":{"scores":[0.25,0.75]}}'
Say = Callable[[int], tuple[int, bytes, float] | None]
STALL = 0.4


@asynccontextmanager
async def server(say: Say) -> AsyncIterator[int]:
    """Answer the n-th request of all with a status and body after seconds, or hang up."""
    number = 0
    writers = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal number
        writers.append(writer)
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.split(b"Content-Length: ")[1].split()[0])
            await reader.readexactly(length)
            number += 1
            told = say(number)
            if told is None:
                break
            status, body, seconds = told
            await asyncio.sleep(seconds)
            writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body)))
            writer.write(body)
        writer.close()

    async def quietly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    found = await asyncio.start_server(quietly, "127.0.0.1", 0)
    try:
        yield found.sockets[0].getsockname()[1]
    finally:
        found.close()
        for writer in writers:
            writer.close()


async def load(folder: Path, say: Say, *, users: int, rate: float | None, seconds: float) -> Tally:
    inputs = folder / "texts.json"
    inputs.write_text('["one", "two", "three"]')
    targets = [Target("a"), Target("b")]
    stream = Stream("all", targets, "scores", users, 1, str(inputs), rate=rate)
    async with server(say) as port:
        plan = Plan("127.0.0.1", port, 0.05, seconds, [stream], {})
        window = await measure(plan)
    assert window.seconds >= seconds
    return window.tallies["all"]


def stalls_once(after: int) -> Say:
    """Everybody who asks within the stall waits for its end, as with a server that froze."""
    end: list[float] = []

    def say(number: int) -> tuple[int, bytes, float]:
        now = asyncio.get_running_loop().time()
        if number == after:
            end.append(now + STALL)
        return 200, RIGHT, max(0.0, end[0] - now) if end else 0.0

    return say


async def test_an_open_loop_counts_what_a_stall_kept_waiting(tmp_path: Path) -> None:
    closed = await load(tmp_path, stalls_once(20), users=1, rate=None, seconds=1)
    opened = await load(tmp_path, stalls_once(20), users=100, rate=100, seconds=1)
    slow = [sum(value > 100 for value in tally.latencies) for tally in (closed, opened)]
    assert slow[0] <= 1
    assert slow[1] > 15  # of the 40 that arrive within the stall, those of its first 300 ms
    assert 60 < opened.requests < 140
    assert max(opened.latencies) <= STALL * 1000 + 150


async def test_arrivals_that_find_no_connection_count_as_waiting(tmp_path: Path) -> None:
    tally = await load(tmp_path, lambda _: (200, RIGHT, 0.3), users=2, rate=100, seconds=0.6)
    assert tally.unsent > 20
    assert len(tally.latencies) == tally.requests + tally.unsent
    assert max(tally.latencies) > 300


async def test_errors_are_counted_and_told(tmp_path: Path) -> None:
    def say(number: int) -> tuple[int, bytes, float] | None:
        if number % 3 == 0:
            return None
        return (429, b'{"detail":"too much"}', 0.0) if number % 3 == 1 else (200, RIGHT, 0.001)

    tally = await load(tmp_path, say, users=2, rate=None, seconds=0.3)
    assert tally.requests > 0
    assert tally.errors > tally.requests  # of three, one is rejected and one is hung up on
    assert tally.wrong == 0
    assert "too much" in str(tally.problems)
    assert "hung up" in str(tally.problems)


@pytest.mark.parametrize("scores", [[1.0], [0.5, 0.9]])
async def test_scores_that_are_none_are_wrong(tmp_path: Path, scores: list[float]) -> None:
    body = msgspec.json.encode({"output": {"scores": scores}})
    tally = await load(tmp_path, lambda _: (200, body, 0.001), users=1, rate=None, seconds=0.1)
    assert tally.wrong >= tally.requests > 0


def test_requests_go_to_all_targets_and_carry_all_texts(tmp_path: Path) -> None:
    inputs = tmp_path / "texts.json"
    inputs.write_text('["one", "two", "three"]')
    targets = [Target("a"), Target("b")]
    stream = Stream("all", targets, "scores", 1, 2, str(inputs), protocol="v2")
    requests = Requests(stream, "here")
    drawn = [requests.next() for _ in range(100)]
    heads = {request.data.split(b" HTTP")[0] for request in drawn}
    assert heads == {b"POST /v2/models/a_ensemble/infer", b"POST /v2/models/b_ensemble/infer"}
    bodies = [msgspec.json.decode(request.data.split(b"\r\n\r\n")[1]) for request in drawn[:2]]
    texts = [body["inputs"][0]["data"] for body in bodies]
    assert texts == [["one", "two"], ["three", "one"]]
    assert [request.first for request in drawn[:3]] == [0, 2, 0]
    again = Requests(stream, "here")
    assert [again.next().target for _ in range(100)] == [request.target for request in drawn]
