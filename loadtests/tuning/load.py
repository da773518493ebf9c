"""The load: users in a closed loop, each on a connection of its own, every answer checked."""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import psutil
from gateway_preprocessor import Payload
from gateway_preprocessor.goldens import Golden

from gateway.preprocessing.workers import Preprocessing
from loadtests.load.clock import Clock
from loadtests.load.connection import Answer, Connection
from loadtests.load.stack import Stack
from loadtests.tuning.candidates import TuningError

#: Shares of a golden text's words that are sent beside the whole of it.
SHARES = (0.25, 0.5, 0.75)
#: Seconds of load before a window counts: connections are made, batches find their size.
WARM_UP = 0.3
PATIENCE = 60


class Window(NamedTuple):
    """What came of some seconds of load.

    Answers a second, latencies in ms, CPU time of the whole stack in ms for each answer, and
    the share of the machine's processors (0 to 1) that other programs had meanwhile.
    """

    rate: float
    p50: float
    p99: float
    cpu: float
    others: float


async def bodies(worker: Preprocessing, inputs: Sequence[Any]) -> list[bytes]:
    """Return the bodies of single requests: `inputs`, or where there are none the golden cases.

    A golden text is sent in several lengths, as real ones vary; whatever the preprocessor
    refuses is left out. Raises TuningError where nothing is left, and for an input refused.
    """
    goldens = worker.identity.goldens
    payloads = [Payload(msgspec.json.encode(item)) for item in inputs] or [
        variant for golden in goldens for variant in _variants(golden)
    ]
    prepared = await worker.preprocess(payloads)
    refused = [item for item in prepared if isinstance(item, Exception)]
    if inputs and refused:
        raise TuningError(f"{worker.identity.distribution} refuses an input: {refused[0]}")
    pairs = zip(payloads, prepared, strict=True)
    if good := [payload for payload, item in pairs if not isinstance(item, Exception)]:
        return [_body(payload) for payload in good]
    raise TuningError(f"{worker.identity.distribution} ships no golden case: give --inputs")


async def measure(
    stack: Stack, model: str, release: str, bodies: Sequence[bytes], users: int, seconds: float
) -> Window:
    """Load one candidate. Raises TuningError for any answer that is not 200."""
    head = (
        f"POST /{model}_single_predict HTTP/1.1\r\nHost: {stack.host}:{stack.port}\r\n"
        f"X-Release: {release}\r\nContent-Type: application/json\r\nContent-Length: "
    ).encode()
    requests = itertools.cycle([head + b"%d\r\n\r\n" % len(body) + body for body in bodies])
    answers = list[tuple[float, float]]()
    pids = [pid for group in stack.groups().values() for pid in group]
    clock = Clock({"stack": pids, "own": [os.getpid()]})
    started = time.perf_counter()
    begin = started + WARM_UP
    end = begin + seconds
    try:
        async with asyncio.timeout(PATIENCE + seconds), asyncio.TaskGroup() as group:
            for _ in range(users):
                group.create_task(_user(stack, requests, answers, end))
    except* (OSError, TimeoutError) as errors:
        raise TuningError(f"the gateway stopped answering: {errors.exceptions[0]!r}") from None
    except* TuningError as errors:
        raise TuningError(str(errors.exceptions[0])) from None
    spent, took = clock.spent(), time.perf_counter() - started
    latencies = [latency for at, latency in answers if begin <= at <= end]
    if len(latencies) < 2:  # noqa: PLR2004 - what quantiles need
        raise TuningError(
            f"{seconds:g} s are too short: a candidate answered {len(latencies)} times"
        )
    cuts = statistics.quantiles(latencies, n=100, method="inclusive")
    return Window(
        rate=len(latencies) / seconds,
        p50=cuts[49] * 1000,
        p99=cuts[98] * 1000,
        cpu=spent["stack"] * 1000 / len(answers),
        others=max(0.0, spent["others"]) / took / (psutil.cpu_count() or 1),
    )


async def _user(
    stack: Stack, requests: Iterator[bytes], answers: list[tuple[float, float]], end: float
) -> None:
    """Send the next request when an answer is in; note when it came, and after how long."""
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(Connection, stack.host, stack.port)
    try:
        while (sent := time.perf_counter()) < end:
            answered: asyncio.Future[Answer | None] = loop.create_future()
            connection.send(next(requests), answered.set_result)
            if (answer := await answered) is None:
                raise ConnectionError("it hung up")
            if answer.status != 200 or not answer.body.startswith(b'{"output":'):  # noqa: PLR2004
                raise TuningError(f"a wrong answer, {answer.status}: {answer.body[:300].decode()}")
            got = time.perf_counter()
            answers.append((got, got - sent))
    finally:
        connection.close()


def _variants(golden: Golden) -> Iterator[Payload]:
    whole = golden.payload
    yield whole
    words = golden.input.split() if isinstance(golden.input, str) else []
    for count in sorted({max(1, round(len(words) * share)) for share in SHARES}):
        if count < len(words):
            text = msgspec.json.encode(" ".join(words[:count]))
            yield whole._replace(content=text)


def _body(payload: Payload) -> bytes:
    parameters = b',"parameters":' + payload.parameters if payload.parameters else b""
    return b'{"input":' + payload.content + parameters + b"}"
