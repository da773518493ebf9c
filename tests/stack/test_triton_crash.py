"""Triton killed under load: kind errors meanwhile, and the service resumes by itself."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.goldens import cases
from tests.support.stack import Stack, serve

RESUME_SECONDS = 60


@pytest.fixture(scope="module")
def crashing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = serve(tmp_path_factory.mktemp("crashing"), models="tumor")
    yield stack
    stack.interrupt()


async def test_sigkill_under_load(crashing: Stack) -> None:
    case = cases("tumor")[0]
    answers: list[tuple[float, httpx.Response]] = []
    stop = asyncio.Event()

    async def user(client: httpx.AsyncClient) -> None:
        while not stop.is_set():
            answer = await client.post("/tumor_single_predict", json=case.single)
            answers.append((time.monotonic(), answer))
            await asyncio.sleep(0 if answer.status_code == 200 else 0.02)

    async with httpx.AsyncClient(base_url=crashing.url, timeout=30) as client:
        users = [asyncio.create_task(user(client)) for _ in range(8)]
        await asyncio.sleep(1)
        first = crashing.triton
        killed = time.monotonic()
        first.kill()

        reasons = await _wait(client, ready=False)
        assert any(name.startswith("tumor/") or name == "triton" for name in reasons)
        unready = await client.post("/tumor_single_predict", json=case.single)
        assert unready.status_code == 503
        assert int(unready.headers["Retry-After"]) >= 1

        await _wait(client, ready=True)
        resumed = time.monotonic()
        await asyncio.sleep(1)
        stop.set()
        await asyncio.gather(*users)
        assert "gateway_triton_restarts 1.0" in (await client.get("/metrics")).text
    assert crashing.triton.pid != first.pid

    before = [answer for when, answer in answers if when < killed]
    during = [answer for when, answer in answers if killed <= when < resumed]
    after = [answer for when, answer in answers if when >= resumed]
    assert {answer.status_code for answer in before} == {200}
    assert {answer.status_code for answer in after} == {200}
    statuses = Counter(answer.status_code for answer in during)
    assert statuses[503] > 0
    assert statuses.keys() <= {200, 502, 503}, statuses
    for answer in during:
        if answer.status_code == 503:
            assert answer.json()["code"] in {"triton_unreachable", "release_not_ready"}
            assert "Retry-After" in answer.headers
    for answer in before + after:
        assert case.wrong(answer.json()["output"]) is None


async def test_a_killed_model_instance_is_mended(crashing: Stack) -> None:
    case = cases("tumor")[0]
    # Right after a restart the canary's instance may still be there.
    (instance,) = (
        p for p, line in crashing.commands.items() if "models/tumor/1/model.onnx" in line
    )
    instance.kill()
    statuses = Counter[int]()
    async with (
        httpx.AsyncClient(base_url=crashing.url, timeout=30) as client,
        asyncio.timeout(RESUME_SECONDS),
    ):
        while not statuses[200]:
            answer = await client.post("/tumor_single_predict", json=case.single)
            statuses[answer.status_code] += 1
            await asyncio.sleep(0.05)
    assert case.wrong(answer.json()["output"]) is None
    # Three failed calls condemn it; each request has two, and later ones wait for the reload.
    assert statuses.keys() <= {200, 502}
    assert statuses[502] <= 2


async def test_deadlines_that_pass_do_not_unload_the_model(tmp_path: Path) -> None:
    stack = serve(tmp_path, models="minilm")
    body = {"inputs": ["a text that takes its time " * 40] * 16}
    try:
        async with httpx.AsyncClient(base_url=stack.url, timeout=30) as client:
            for milliseconds in range(40, 100, 5):
                answer = await client.post(
                    "/minilm_batch_predict",
                    json=body,
                    headers={"X-Request-Timeout-Ms": str(milliseconds)},
                )
                assert answer.status_code == 504
            await asyncio.sleep(3)  # longer than the pause between two looks at Triton
            assert (await client.post("/minilm_batch_predict", json=body)).status_code == 200
        assert "only fails" not in stack.log.read_text()
    finally:
        stack.interrupt()


async def _wait(client: httpx.AsyncClient, *, ready: bool) -> dict[str, str]:
    """Poll /readyz until it says so; returns the problems it named."""
    async with asyncio.timeout(RESUME_SECONDS):
        while True:
            answer = await client.get("/readyz")
            if (answer.status_code == 200) is ready:
                problems: dict[str, str] = answer.json()["problems"]
                return problems
            await asyncio.sleep(0.02)
