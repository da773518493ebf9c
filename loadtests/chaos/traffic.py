"""Requests with known answers: at a fixed rate, or from users who wait for each answer."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, NamedTuple

import msgspec
from gateway_preprocessor import goldens
from gateway_preprocessor.goldens import Golden

from gateway.preprocessing.installed import load
from gateway.releases.goldens import of_version
from loadtests.chaos.ledger import Fate, Sent, refusal
from loadtests.load.connection import Answer, Connection
from loadtests.load.service import ROOT

PREPROCESSORS = {
    "minilm": "minilm-preprocessor",
    "langid": "langid-preprocessor",
    "digits": "digits-preprocessor",
    "tumor": "tumor-preprocessor",
}
#: Every so many right answers are compared with what is expected.
SAMPLE = 4
#: Requests without parameters and no longer than this, in bytes of their instance.
LONGEST = 2000


class Source(NamedTuple):
    """Requests of one model: singles, or batches of `rows`, with a deadline in seconds.

    `rate` is in requests a second, at random moments; without one, `users` send one after the
    other. `fresh` connections serve one request. `obedient` clients that are refused come back
    when they are told to, once.
    """

    model: str
    rate: float = 0.0
    users: int = 0
    rows: int = 1
    deadline: float = 5.0
    fresh: bool = False
    obedient: bool = False


class Question(NamedTuple):
    """A request as bytes, with its golden cases."""

    data: bytes
    cases: list[Golden]


class Traffic:
    """Sends what its sources say to one server and keeps what came of it in `sent`."""

    def __init__(self, host: str, port: int, *, most_connections: int = 2000) -> None:
        self.sent: list[Sent] = []
        self.returned: list[Sent] = []
        self._address = host, port
        self._free: list[Connection] = []
        self._slots = asyncio.Semaphore(most_connections)
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def flowing(self, *sources: Source) -> AsyncIterator[None]:
        """Send requests while the block runs, then wait for the last answers."""
        senders = [asyncio.create_task(self._send(source)) for source in sources]
        try:
            yield
        finally:
            for sender in senders:
                sender.cancel()
            await asyncio.gather(*senders, return_exceptions=True)
            await asyncio.gather(*self._tasks)
            for connection in self._free:
                connection.close()
            self._free.clear()

    async def _send(self, source: Source) -> None:
        chance = random.Random(source.model)  # noqa: S311 - the same requests each time
        asked = questions(source, self._address)
        if not source.rate:
            users = (self._user(source, asked, chance) for _ in range(source.users))
            await asyncio.gather(*users)
        due = time.perf_counter()
        while True:
            due += chance.expovariate(source.rate)
            await asyncio.sleep(due - time.perf_counter())
            task = asyncio.create_task(self._ask(source, chance.choice(asked), due))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _user(self, source: Source, asked: list[Question], chance: random.Random) -> None:
        while True:
            one = asyncio.create_task(self._ask(source, chance.choice(asked), time.perf_counter()))
            self._tasks.add(one)
            one.add_done_callback(self._tasks.discard)
            await asyncio.shield(one)

    async def _ask(self, source: Source, question: Question, due: float) -> None:
        result = await self._answered(source, question, due)
        self.sent.append(result)
        if source.obedient and result.retry_after:
            await asyncio.sleep(result.retry_after)
            self.returned.append(await self._answered(source, question, time.perf_counter()))

    async def _answered(self, source: Source, question: Question, due: float) -> Sent:
        async with self._slots:
            try:
                answer = await self._exchange(source, question.data)
            except OSError as error:
                seconds, problem = time.perf_counter() - due, type(error).__name__
                return Sent(source.model, due, seconds, Fate.LOST, problem=problem)
        return judged(source, question, answer, due, time.perf_counter() - due)

    async def _exchange(self, source: Source, data: bytes) -> Answer | None:
        loop = asyncio.get_running_loop()
        while self._free and not self._free[-1].open:
            self._free.pop()
        if self._free and not source.fresh:
            connection = self._free.pop()
        else:
            _, connection = await loop.create_connection(Connection, *self._address)
        answered: asyncio.Future[Answer | None] = loop.create_future()
        connection.send(data, answered.set_result)
        answer = await answered
        if connection.open and not source.fresh:
            self._free.append(connection)
        else:
            connection.close()
        return answer


def judged(
    source: Source, question: Question, answer: Answer | None, due: float, seconds: float
) -> Sent:
    """Say what came of a request."""
    if answer is None:
        return Sent(source.model, due, seconds, Fate.LOST, problem="the server hung up")
    if answer.status != 200:  # noqa: PLR2004
        fate, code, retry_after, problem = refusal(answer, seconds, source.deadline)
        return Sent(source.model, due, seconds, fate, code, retry_after, problem)
    wrong = difference(question, answer.body) if hash(due) % SAMPLE == 0 else ""
    return Sent(source.model, due, seconds, Fate.WRONG if wrong else Fate.RIGHT, problem=wrong)


def difference(question: Question, body: bytes) -> str:
    """Say how an answer differs from the golden results; empty if it does not."""
    answer: dict[str, Any] = msgspec.json.decode(body)
    outputs = answer["outputs"] if "outputs" in answer else [answer["output"]]
    known = {one.name: one for one in _goldens(answer["model"], answer["model_version"])}
    for case, output in zip(question.cases, outputs, strict=True):
        golden = known[case.name]
        if told := goldens.difference(golden.output, output, golden.output_tolerance):
            return f"{answer['model']}, {case.name}: {told}"
    return ""


def questions(source: Source, address: tuple[str, int]) -> list[Question]:
    """Return the requests of a source: its model's golden cases, in turn."""
    fit = [
        case
        for case in _goldens(source.model, 1)
        if not case.parameters and len(msgspec.json.encode(case.input)) <= LONGEST
    ]
    found = []
    for first in range(len(fit)):
        cases = [fit[(first + row) % len(fit)] for row in range(source.rows)]
        single = source.rows == 1
        content = {"input": cases[0].input} if single else {"inputs": [c.input for c in cases]}
        body = msgspec.json.encode(content)
        head = (
            f"POST /{source.model}_{'single' if single else 'batch'}_predict HTTP/1.1\r\n"
            f"Host: {address[0]}\r\nContent-Type: application/json\r\n"
            f"X-Request-Timeout-Ms: {source.deadline * 1000:.0f}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        found.append(Question(head.encode() + body, cases))
    return found


@cache
def _goldens(model: str, version: int) -> list[Golden]:
    _, runner = load(PREPROCESSORS[model])
    return of_version(
        ROOT / "model_repository" / model, version, goldens.load(type(runner.preprocessor))
    )
