"""The load: users in a closed loop, each on a connection of its own, every answer checked."""

from __future__ import annotations

import asyncio
import itertools
import re
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
from gateway_preprocessor import Payload
from gateway_preprocessor.goldens import Golden

from gateway.preprocessing.workers import Preprocessing
from gateway.tuning.candidates import TuningError
from gateway.tuning.server import Served
from gateway.tuning.usage import Usage

#: Shares of a golden text's words that are sent beside the whole of it.
SHARES = (0.25, 0.5, 0.75)
#: Seconds of load before a window counts: connections are made, the batches find their size.
WARM_UP = 0.3
PATIENCE = 60
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


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
        raise TuningError(f"an input is refused by {worker.identity.distribution}: {refused[0]}")
    pairs = zip(payloads, prepared, strict=True)
    if good := [payload for payload, item in pairs if not isinstance(item, Exception)]:
        return [_body(payload) for payload in good]
    raise TuningError(f"{worker.identity.distribution} ships no golden case: give --inputs")


async def measure(
    gateway: Served,
    model: str,
    release: str,
    bodies: Sequence[bytes],
    users: int,
    seconds: float,
) -> Window:
    """Load one candidate. Raises TuningError for any answer that is not 200."""
    place = urlsplit(gateway.url)
    head = (
        f"POST /{model}_single_predict HTTP/1.1\r\nHost: {place.netloc}\r\n"
        f"X-Release: {release}\r\nContent-Type: application/json\r\nContent-Length: "
    ).encode()
    requests = itertools.cycle([head + b"%d\r\n\r\n" % len(body) + body for body in bodies])
    answers = list[tuple[float, float]]()
    before, started = Usage.read(gateway.process), time.perf_counter()
    begin = started + WARM_UP
    end = begin + seconds
    try:
        async with asyncio.timeout(PATIENCE + seconds), asyncio.TaskGroup() as group:
            for _ in range(users):
                user = _user(place.hostname, place.port, requests, answers, end)
                group.create_task(user)
    except* (OSError, EOFError, TimeoutError) as errors:
        raise TuningError(f"the gateway stopped answering: {errors.exceptions[0]!r}") from None
    except* TuningError as errors:
        raise TuningError(str(errors.exceptions[0])) from None
    used = Usage.read(gateway.process).since(before)
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
        cpu=used.stack * 1000 / len(answers),
        others=used.others(time.perf_counter() - started),
    )


async def _user(
    host: str | None,
    port: int | None,
    requests: Iterator[bytes],
    answers: list[tuple[float, float]],
    end: float,
) -> None:
    """Send the next request when an answer is in; note when it came, and after how long."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        while (sent := time.perf_counter()) < end:
            writer.write(next(requests))
            head = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            body = await reader.readexactly(int(length[1]) if length else 0)
            if head[9:12] != b"200" or not body.startswith(b'{"output":'):
                raise TuningError(f"a request was not answered right: {body[:300].decode()}")
            got = time.perf_counter()
            answers.append((got, got - sent))
    finally:
        writer.close()


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
