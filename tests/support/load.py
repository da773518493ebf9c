"""Load on a running stack while a test does something to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from tests.support.goldens import cases
from tests.support.stack import Stack

CASE = cases("tumor")[0]


@asynccontextmanager
async def load(stack: Stack, users: int = 4) -> AsyncIterator[list[httpx.Response]]:
    """Send requests all the while; at the end, each must have been answered rightly."""
    stop = asyncio.Event()
    answers: list[httpx.Response] = []

    async def user(client: httpx.AsyncClient) -> None:
        while not stop.is_set():
            answers.append(await client.post("/tumor_single_predict", json=CASE.single))

    async with httpx.AsyncClient(base_url=stack.url, timeout=60) as client:
        asking = [asyncio.create_task(user(client)) for _ in range(users)]
        try:
            yield answers
        finally:
            stop.set()
            await asyncio.gather(*asking)
    assert {answer.status_code for answer in answers} == {200}, answers[-1].text
    assert all(CASE.wrong(answer.json()["output"]) is None for answer in answers)
