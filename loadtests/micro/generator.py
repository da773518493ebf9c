"""The load generator: a process of its own, raw sockets on uvloop, every answer judged.

`python -m loadtests.micro.generator` reads a Plan (JSON) and writes a Window. A user sends the
next request as soon as its answer is in, and only then judges the answer.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import re
import sys
import time
from pathlib import Path
from typing import cast

import msgspec
import psutil
import uvloop

from loadtests.micro.answers import judge
from loadtests.micro.plan import Plan, Stream, Tally, Window

#: Seconds beyond the window's end that every user's first or last answer may take.
PATIENCE = 60
POLL = 0.02
MOST_PROBLEMS = 5
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Load:
    """One stream: its requests, written once, and what came of them while `recording`."""

    def __init__(self, stream: Stream, host: str) -> None:
        self.stream = stream
        self.recording = False
        self.sending = True
        self.tally = Tally(0, 0, [], 0, [], [])
        self._judge = judge(stream)
        self._requests = _requests(stream, host)
        start = stream.offset // stream.rows
        self._numbers = (number % len(self._requests) for number in itertools.count(start))

    def next(self) -> tuple[int, bytes]:
        """Return the next request with the number of its first instance."""
        number = next(self._numbers)
        return number * self.stream.rows, self._requests[number]

    def take(self, first: int, seconds: float, head: bytes, body: bytes) -> None:
        """Judge and record one answer."""
        problem = self._judge.wrong(int(head[9:12]), body, first)
        tally = self.tally
        if problem:
            tally.wrong += 1
            if len(tally.problems) < MOST_PROBLEMS:
                tally.problems.append(problem)
        if self.recording:
            tally.requests += 1
            tally.rows += self.stream.rows
            tally.latencies.append(round(seconds * 1000, 4))
            tally.cosines = self._judge.cosines


class User(asyncio.Protocol):
    """One connection that is kept alive, with one request at a time on it."""

    def __init__(self, load: Load) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._load = load
        self._buffer = bytearray()
        self._whole = self._body = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = cast(asyncio.Transport, transport)  # what TCP gives
        self._send()

    def data_received(self, data: bytes) -> None:
        """Take the next part of an answer; go on when it is whole."""
        self._buffer += data
        if not self._whole:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            found = _LENGTH.search(self._buffer, 0, end)
            if not found:
                raise ValueError(f"no Content-Length: {bytes(self._buffer[:end])!r}")
            self._body = end + 4
            self._whole = self._body + int(found[1])
        if len(self._buffer) < self._whole:
            return
        seconds = time.perf_counter() - self._sent
        answer, body, first = bytes(self._buffer), self._body, self._first
        self._buffer.clear()
        self._whole = 0
        if self._load.sending:
            self._send()
        else:
            self.done.set_result(None)
            self._transport.close()
        self._load.take(first, seconds, answer, answer[body:])

    def connection_lost(self, error: Exception | None) -> None:
        """Fail the run where the server hung up."""
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("the server hung up"))

    def _send(self) -> None:
        self._first, request = self._load.next()
        self._sent = time.perf_counter()
        self._transport.write(request)


class Clock:
    """CPU seconds of groups of processes, and of all others of the machine."""

    def __init__(self, watched: dict[str, list[int]]) -> None:
        own = {**watched, "generator": [psutil.Process().pid]}
        self._groups = {name: [psutil.Process(pid) for pid in pids] for name, pids in own.items()}

    def read(self) -> dict[str, float]:
        """Return CPU seconds so far, user and system."""
        busy = psutil.cpu_times()
        found = {
            name: sum(sum(process.cpu_times()[:2]) for process in processes)
            for name, processes in self._groups.items()
        }
        return {**found, "others": busy.user + busy.nice + busy.system - sum(found.values())}


async def measure(plan: Plan) -> Window:
    """Run one window: warm up, measure, let what is under way finish."""
    loop = asyncio.get_running_loop()
    loads = [Load(stream, plan.host) for stream in plan.streams]
    clock = Clock(plan.watched)
    gc.freeze()  # thousands of requests, written once: nothing to look through again
    users = []
    for load in loads:
        for _ in range(load.stream.users):
            user = User(load)
            await loop.create_connection(lambda found=user: found, plan.host, plan.port)  # type: ignore[misc]
            users.append(user)
    finished = asyncio.gather(*(user.done for user in users))
    await asyncio.wait((finished,), timeout=plan.warm_up)
    before, started = clock.read(), time.perf_counter()
    for load in loads:
        load.recording = True
    await asyncio.wait((finished,), timeout=plan.seconds)
    while any(load.tally.requests < load.stream.users for load in loads):
        # Too short a window for a busy machine or for large batches: everybody has one answer.
        if finished.done() or time.perf_counter() - started > plan.seconds + PATIENCE:
            break
        await asyncio.sleep(POLL)
    for load in loads:
        load.recording = load.sending = False
    seconds, after = time.perf_counter() - started, clock.read()
    async with asyncio.timeout(PATIENCE):
        await finished
    cpu = {name: round(after[name] - before[name], 3) for name in before}
    return Window(seconds, cpu, {load.stream.name: load.tally for load in loads})


def _requests(stream: Stream, host: str) -> list[bytes]:
    """Write down every request: together they carry each instance, in order."""
    inputs = msgspec.json.decode(Path(stream.inputs).read_bytes(), type=list[msgspec.Raw])
    form = "single" if stream.rows == 1 else "batch"
    head = (
        f"POST /{stream.stamps.model}_{form}_predict HTTP/1.1\r\nHost: {host}\r\n"
        f"Content-Type: application/json\r\nX-Release: {stream.stamps.release}\r\n"
    )
    found = []
    for first in range(0, len(inputs), stream.rows):
        rows = [inputs[row % len(inputs)] for row in range(first, first + stream.rows)]
        body = msgspec.json.encode({"input": rows[0]} if stream.rows == 1 else {"inputs": rows})
        found.append(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return found


def main() -> None:
    """Do what the plan says."""
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(measure(plan))))


if __name__ == "__main__":
    main()
