"""How requests come: a closed loop of users, or an open loop at a fixed rate of arrival."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque

from loadtests.load.answers import judge
from loadtests.load.connection import Answer, Connection
from loadtests.load.plan import Plan, Stream, Tally
from loadtests.load.requests import Request, Requests

MOST_PROBLEMS = 5
HUNG_UP = "the server hung up"


class Loop:
    """One stream: its requests, and what came of them while `recording`."""

    def __init__(self, stream: Stream, plan: Plan) -> None:
        self.stream = stream
        self.tally = Tally()
        self._since: float | None = None
        self._sending = True
        self._address = plan.host, plan.port
        self._judge = judge(stream)
        self._requests = Requests(stream, plan.host)
        self._under_way = 0
        self._idle = asyncio.Event()

    async def start(self) -> None:
        """Begin to send. Raises OSError where nobody answers."""
        raise NotImplementedError

    def record(self) -> None:
        """Begin to count."""
        self._since = time.perf_counter()

    def stop(self) -> None:
        """Send nothing more."""
        self._sending = False

    async def idle(self) -> None:
        """Wait for what is under way."""
        while self._under_way:
            self._idle.clear()
            await self._idle.wait()

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, *self._address)
        return connection

    def _send(self, connection: Connection, since: float) -> None:
        """Send the next request, whose latency counts from `since`."""
        request = self._requests.next()
        self._under_way += 1

        def answered(answer: Answer | None) -> None:
            seconds = time.perf_counter() - since
            counts = self._counts(since)
            self._under_way -= 1
            self._after(connection)
            self._take(request, seconds, answer, counts)
            if not self._under_way:
                self._idle.set()

        connection.send(request.data, answered)

    def _after(self, connection: Connection) -> None:
        """Go on after an answer, before it is judged."""
        raise NotImplementedError

    def _counts(self, since: float) -> bool:
        """Say whether an answer that comes now to a request of then counts."""
        raise NotImplementedError

    def _take(self, request: Request, seconds: float, answer: Answer | None, counts: bool) -> None:
        failed = answer is None or answer.status != 200  # noqa: PLR2004
        if answer is None:
            problem: str | None = HUNG_UP
        elif failed:
            problem = f"{answer.status}: {answer.body[:200]!r}"
        else:
            problem = self._judge.wrong(answer, request)
        tally = self.tally
        if problem and len(tally.problems) < MOST_PROBLEMS:
            tally.problems.append(problem)
        if failed:
            tally.errors += 1
            return
        tally.wrong += problem is not None
        if counts:
            tally.requests += 1
            tally.rows += self.stream.rows
            tally.latencies.append(round(seconds * 1000, 4))
            tally.cosines = self._judge.cosines


class Closed(Loop):
    """Users who each send the next request as soon as the answer is in; counts what is answered."""

    def __init__(self, stream: Stream, plan: Plan) -> None:
        super().__init__(stream, plan)
        self._returning: list[asyncio.Future[None]] = []

    async def start(self) -> None:
        """Connect every user; each sends at once."""
        for _ in range(self.stream.users):
            self._send(await self._connect(), time.perf_counter())

    def stop(self) -> None:
        """Count nothing more, either."""
        super().stop()
        self._since = None

    @property
    def everybody_answered(self) -> bool:
        """Whether the window was long enough for every user to have an answer."""
        return self.tally.requests + self.tally.errors >= self.stream.users

    def _after(self, connection: Connection) -> None:
        if not self._sending:
            connection.close()
        elif connection.open:
            self._send(connection, time.perf_counter())
        else:
            self._returning.append(asyncio.ensure_future(self._return()))

    async def _return(self) -> None:
        """Come back after the server hung up; where it does not listen any more, stay away."""
        try:
            self._send(await self._connect(), time.perf_counter())
        except OSError:
            self.tally.errors += 1

    def _counts(self, since: float) -> bool:  # noqa: ARG002
        return self._since is not None


class Open(Loop):
    """Arrivals at random moments at a mean rate; counts what arrives while recording."""

    def __init__(self, stream: Stream, plan: Plan) -> None:
        super().__init__(stream, plan)
        self._free: list[Connection] = []
        self._connections = 0
        self._waiting = deque[float]()
        self._chance = random.Random(stream.seed)  # noqa: S311 - the same moments each time

    async def start(self) -> None:
        """Let requests arrive from now on."""
        self._free = [await self._connect() for _ in range(min(8, self.stream.users))]
        self._connections = len(self._free)
        self._arriving = asyncio.ensure_future(self._arrive())

    def stop(self) -> None:
        """End the arrivals; what was never sent has waited at least until now."""
        super().stop()
        self._arriving.cancel()
        now = time.perf_counter()
        for since in filter(self._counts, self._waiting):
            self.tally.unsent += 1
            self.tally.latencies.append(round((now - since) * 1000, 4))
        self._waiting.clear()
        for connection in self._free:
            connection.close()

    async def _arrive(self) -> None:
        assert self.stream.rate  # noqa: S101 - what makes the loop open
        now = time.perf_counter()
        while True:
            now += self._chance.expovariate(self.stream.rate)
            await asyncio.sleep(now - time.perf_counter())
            still = [connection for connection in self._free if connection.open]
            self._connections -= len(self._free) - len(still)
            self._free = still
            if self._free:
                self._send(self._free.pop(), now)
            elif self._connections < self.stream.users:
                self._connections += 1
                self._send(await self._connect(), now)
            else:
                self._waiting.append(now)

    def _after(self, connection: Connection) -> None:
        if not connection.open:
            self._connections -= 1
        elif not self._sending:
            connection.close()
        elif self._waiting:
            self._send(connection, self._waiting.popleft())
        else:
            self._free.append(connection)

    def _counts(self, since: float) -> bool:
        return self._since is not None and since >= self._since


def loop(stream: Stream, plan: Plan) -> Loop:
    """Return the loop that a stream asks for."""
    return Open(stream, plan) if stream.rate else Closed(stream, plan)
