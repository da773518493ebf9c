"""Several gateways on one port: they share the load, the metrics, Triton and the workers."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.goldens import cases
from tests.support.raw import post_all
from tests.support.stack import GATEWAY, ROOT, Stack, serve

CASE = cases("tumor")[0]
PROCESSES, WORKERS, PATIENCE_SECONDS = 2, 1, 60


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = serve(
        tmp_path_factory.mktemp("processes"),
        models="tumor",
        processes=str(PROCESSES),
        workers=str(WORKERS),
    )
    yield stack
    stack.interrupt()  # which fails where a process is left


def answered(stack: Stack) -> float:
    with stack.client() as client:
        text = client.get("/metrics").text
    found = re.findall(r'^gateway_requests_total\{.*model="tumor".*\} (\S+)$', text, re.MULTILINE)
    return sum(map(float, found))


async def test_they_share_the_load_and_the_metrics(stack: Stack) -> None:
    assert len(stack.gateways) == PROCESSES
    assert len(stack.workers("tumor-preprocessor")) == WORKERS
    before = [sum(process.cpu_times()[:2]) for process in stack.gateways]
    counted, requests = answered(stack), 2000
    body = httpx.Request("POST", "http://x", json=CASE.single).content
    await post_all(stack.url, [("/tumor_single_predict", body)] * requests, users=32)
    assert answered(stack) == counted + requests
    spent = [
        sum(process.cpu_times()[:2]) - start
        for process, start in zip(stack.gateways, before, strict=True)
    ]
    assert min(spent) > 0.1 * max(spent)  # the kernel spreads connections, not evenly


async def test_one_that_dies_is_started_again(stack: Stack) -> None:
    first = stack.gateways
    first[0].kill()
    async with asyncio.timeout(PATIENCE_SECONDS):
        async with httpx.AsyncClient(base_url=stack.url, timeout=30) as client:
            while True:
                now = stack.gateways
                if len(now) == PROCESSES and first[0].pid not in {p.pid for p in now}:
                    break
                try:
                    answer = await client.post("/tumor_single_predict", json=CASE.single)
                except httpx.TransportError:
                    continue  # this connection was the dead one's
                assert answer.status_code == 200, answer.text
                await asyncio.sleep(0.05)
    for _ in range(50):
        with stack.client() as client:
            answer = client.post("/tumor_single_predict", json=CASE.single)
        assert CASE.wrong(answer.json()["output"]) is None


def test_gateways_that_cannot_start_are_given_up(tmp_path: Path) -> None:
    command = [GATEWAY, "serve", "--processes", "2", "--port", "0", "--triton", "127.0.0.1:1"]
    places = ["--repository", tmp_path / "absent", "--run-dir", tmp_path]
    done = subprocess.run(
        [*command, *places], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 1
    assert "does not exist" in done.stderr
    assert re.search(r"^Error: gateway [01] exited with code 1", done.stderr, re.MULTILINE)
    assert "Traceback" not in done.stderr
