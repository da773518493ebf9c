"""A full lane refuses kindly, and a client that leaves costs nothing more."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest

from tests.support.stack import Stack, serve

pytestmark = pytest.mark.alone

QUEUE = 64
PIN = {"X-Release": "2"}
LONG = "many words make a long text " * 60


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A gateway that admits sixty-four rows to each release."""
    run_dir = tmp_path_factory.mktemp("small")
    settings = {"queue_rows": str(QUEUE), "max_batch_rows": str(QUEUE)}
    stack = serve(run_dir, models="minilm", **settings)
    yield stack
    stack.interrupt()


def metric(stack: Stack, name: str) -> float:
    """Read one sample of the minilm lane."""
    with stack.client() as client:
        text = client.get("/metrics").text
    found = re.search(rf'^{name}\{{model="minilm",release="2"\}} ([0-9.e+]+)$', text, re.MULTILINE)
    assert found, name
    return float(found[1])


async def test_rows_beyond_the_queue_are_refused(small: Stack) -> None:
    async with httpx.AsyncClient(base_url=small.url, timeout=60) as client:
        body = {"inputs": [LONG] * 4}
        answers = await asyncio.gather(
            *(client.post("/minilm_batch_predict", json=body, headers=PIN) for _ in range(20))
        )
        statuses = Counter(answer.status_code for answer in answers)
        assert statuses.keys() == {200, 429}
        assert statuses[200] >= QUEUE / 4
        for answer in answers:
            if answer.status_code == 429:
                assert answer.json()["code"] == "overloaded"
                assert 1 <= int(answer.headers["Retry-After"]) <= 30
        after = await client.post("/minilm_single_predict", json={"input": "calm"}, headers=PIN)
    assert after.status_code == 200
    assert metric(small, "gateway_rows_admitted") == 0


async def test_a_client_that_leaves_costs_nothing_more(small: Stack) -> None:
    rows = metric(small, "gateway_call_rows_sum")
    async with httpx.AsyncClient(base_url=small.url) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post(
                "/minilm_batch_predict",
                json={"inputs": [LONG] * QUEUE},
                headers=PIN,
                timeout=httpx.Timeout(10, read=0.15),
            )
    async with asyncio.timeout(20):
        while metric(small, "gateway_rows_admitted") or metric(small, "gateway_calls_in_flight"):
            await asyncio.sleep(0.05)
    # The calls under way finish; the rows that still waited are dropped.
    assert metric(small, "gateway_call_rows_sum") - rows < QUEUE
    with small.client() as client:
        assert client.post("/minilm_single_predict", json={"input": "on"}).status_code == 200


async def test_a_deadline_that_passes_drops_what_waits(small: Stack) -> None:
    rows = metric(small, "gateway_call_rows_sum")
    async with httpx.AsyncClient(base_url=small.url, timeout=30) as client:
        answer = await client.post(
            "/minilm_batch_predict",
            json={"inputs": [LONG] * QUEUE},
            headers=PIN | {"X-Request-Timeout-Ms": "100"},
        )
    assert answer.status_code == 504
    assert metric(small, "gateway_rows_admitted") == 0
    assert metric(small, "gateway_call_rows_sum") - rows < QUEUE
