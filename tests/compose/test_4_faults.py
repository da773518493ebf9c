"""Parts that die, and a stop while requests are under way."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter

import httpx

from tests.support import goldens
from tests.support.compose import Compose, docker, eventually

USERS = 8


def _pid(container: str, name: str) -> int:
    """Find a container's process among the host's."""
    for line in docker("top", container, "-eo", "pid,comm").splitlines()[1:]:
        pid, command = line.split(maxsplit=1)
        if command == name:
            return int(pid)
    raise AssertionError(f"no {name} runs")


def test_a_triton_killed_from_outside_the_engine_comes_back(compose: Compose) -> None:
    compose.configure()
    compose.up("--remove-orphans")
    (container,) = compose.containers("triton")
    (case, *_) = goldens.cases("tumor")
    with compose.client() as client:
        os.kill(_pid(container, "tritonserver"), signal.SIGKILL)

        def answers() -> bool:
            answer = client.post("/tumor_single_predict", json=case.single)
            assert answer.status_code in {200, 502, 503}, answer.text
            return answer.status_code == 200 and case.wrong(answer.json()["output"]) is None

        eventually(answers)
        eventually(lambda: client.get("/readyz").status_code == 200)
    (state,) = compose.inspect("triton")
    assert state["RestartCount"] == 1
    assert state["State"]["Running"]


def test_a_gateway_killed_from_outside_the_engine_comes_back(compose: Compose) -> None:
    (container,) = compose.containers("gateway")
    os.kill(_pid(container, "gateway"), signal.SIGKILL)
    with compose.client() as client:
        eventually(lambda: client.get("/readyz").status_code == 200)
    (state,) = compose.inspect("gateway")
    assert state["RestartCount"] == 1


async def test_gateways_are_replaced_without_a_lost_request(compose: Compose) -> None:
    """As docs/deploy.md says: new ones beside the old, then the old are stopped."""
    (case, *_) = goldens.cases("langid")
    body = {"inputs": [case.golden.input] * 16}
    told: Counter[str] = Counter()
    replaced = asyncio.Event()

    async def user() -> None:
        async with httpx.AsyncClient(base_url=compose.url, timeout=60) as client:
            while not replaced.is_set():
                answer = await client.post("/langid_batch_predict", json=body)
                told[f"{answer.status_code} {answer.json().get('code', '')}"] += 1

    users = [asyncio.create_task(user()) for _ in range(USERS)]
    old = compose.containers("gateway")
    # Not --no-deps: a container made so knows no order in which the stack is to be stopped.
    more = ("up", "-d", "--wait", "--no-recreate", "--scale", "gateway=2", "gateway")
    await asyncio.to_thread(compose, *more)
    await asyncio.to_thread(docker, "stop", "--time", "30", *old)
    await asyncio.to_thread(docker, "rm", *old)
    await asyncio.sleep(3)
    replaced.set()
    await asyncio.gather(*users)
    assert told.keys() == {"200 "}, told
    assert not set(old) & set(compose.containers("gateway"))


async def test_a_stop_under_load_loses_no_accepted_request(compose: Compose) -> None:
    """Clients keep their connections; what they managed to send is answered, and rightly.

    They ask the load balancer itself: Docker's own proxy of a published port accepts connections
    that nobody behind it does, and resets them.
    """
    address = compose.address("lb")
    cases = [case for case in goldens.cases("minilm") if not case.golden.parameters]
    body = {"inputs": [case.golden.input for case in cases] * 8}
    told: Counter[str] = Counter()
    answered_after_stop = 0
    stopping = asyncio.Event()

    async def user() -> None:
        nonlocal answered_after_stop
        async with httpx.AsyncClient(base_url=f"http://{address}:8080", timeout=60) as client:
            while True:
                try:
                    answer = await client.post("/minilm_batch_predict", json=body)
                except httpx.ConnectError:  # nobody listens any more: nothing was accepted
                    return
                except httpx.HTTPError as error:
                    told[f"lost: {error!r}"] += 1
                    return
                if answer.status_code != 200:
                    told[f"{answer.status_code}: {answer.text[:300]}"] += 1
                    return
                told["200"] += 1
                answered_after_stop += stopping.is_set()
                for case, output in zip(cases * 8, answer.json()["outputs"], strict=True):
                    assert case.wrong(output) is None

    users = [asyncio.create_task(user()) for _ in range(USERS)]
    await asyncio.sleep(4)
    stopping.set()
    stop = compose.start("stop")
    await asyncio.wait_for(asyncio.gather(*users), 120)
    assert await asyncio.to_thread(stop.wait, 120) == 0
    assert told.keys() == {"200"}, told
    assert answered_after_stop  # some were under way
    codes = {item["Name"]: item["State"]["ExitCode"] for item in compose.inspect()}
    assert set(codes.values()) == {0}, codes


def test_a_gateway_with_work_ends_in_time_when_it_is_stopped(compose: Compose) -> None:
    """SIGTERM reaches the gateway itself: it drains and exits with 0 within the grace period."""
    compose.up()
    started = time.monotonic()
    compose("stop", "gateway")
    assert time.monotonic() - started < 25
    (state,) = compose.inspect("gateway")
    assert state["State"]["ExitCode"] == 0
    compose.up()
