"""The call limiter: the cores stay busy, callers take turns, a slow call holds nobody up."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from statistics import median

import httpx
import pytest

from gateway.serving import limiter
from gateway.serving.limiter import CallLimiter, Permit
from tests.support.stack import serve

pytestmark = pytest.mark.alone


class Caller:
    """Has so many calls to make, and makes them as a batcher does: while it may."""

    def __init__(self, shared: CallLimiter, name: str, calls: int, log: list[str]) -> None:
        self._shared = shared
        self._name = name
        self._log = log
        self.left = calls
        self.running: list[Permit] = []

    def pump(self) -> None:
        while self.left and (permit := self._shared.acquire(self.pump)):
            self.left -= 1
            self._log.append(self._name)
            self.running.append(permit)

    def finish(self) -> None:
        self.running.pop(0).release()
        self.pump()


async def test_callers_take_turns_a_call_each() -> None:
    log: list[str] = []
    shared = CallLimiter(2)
    callers = {name: Caller(shared, name, 4, log) for name in "abc"}
    for caller in callers.values():
        caller.pump()
        caller.pump()  # asking again keeps its one place
    assert log == ["a", "a"]
    while len(log) < 12:
        next(caller for caller in callers.values() if caller.running).finish()
        assert sum(len(caller.running) for caller in callers.values()) == 2
    # The first had both turns while nobody else was there; from then on one call each.
    assert "".join(log) == "aa" + "abc" + "abc" + "bc" + "bc"


async def test_a_caller_with_nothing_left_passes_its_turn_on() -> None:
    log: list[str] = []
    shared = CallLimiter(1)
    first, idle, last = (Caller(shared, name, 1, log) for name in ("first", "idle", "last"))
    for caller in (first, idle, last):
        caller.pump()
    idle.left = 0  # its clients went away
    first.finish()
    assert log == ["first", "last"]


async def test_a_caller_that_has_gone_gets_no_turn() -> None:
    log: list[str] = []
    shared = CallLimiter(1)
    first, gone, last = (Caller(shared, name, 1, log) for name in ("first", "gone", "last"))
    for caller in (first, gone, last):
        caller.pump()
    shared.forget(gone.pump)
    shared.forget(gone.pump)
    first.finish()
    assert log == ["first", "last"]


async def test_a_long_call_gives_its_turn_back_before_it_ends() -> None:
    log: list[str] = []
    shared = CallLimiter(1)
    slow, quick = Caller(shared, "slow", 1, log), Caller(shared, "quick", 1, log)
    slow.pump()
    quick.pump()
    assert log == ["slow"]
    await asyncio.sleep(1.5 * limiter.LONG_CALL)
    assert log == ["slow", "quick"]
    slow.left = 1
    slow.finish()  # its turn was given back already: quick still has the only one
    assert log == ["slow", "quick"]
    quick.finish()
    assert log == ["slow", "quick", "slow"]


async def test_without_a_bound_nobody_waits() -> None:
    log: list[str] = []
    shared = CallLimiter(0)
    Caller(shared, "a", 500, log).pump()
    assert len(log) == 500


async def test_real_models_share_one_turn_and_all_are_answered(tmp_path: Path) -> None:
    models, body = ("minilm", "minilm_torchscript"), {"inputs": ["Short."] * 64}
    stack = serve(tmp_path, models=",".join(models), max_calls="1")
    answered = dict.fromkeys(models, 0)
    in_flight = []
    try:
        async with httpx.AsyncClient(base_url=stack.url, timeout=60) as client:

            async def user(model: str, patience: str) -> None:
                for _ in range(10):
                    headers = {"X-Request-Timeout-Ms": patience}
                    path = f"/{model}_batch_predict"
                    answer = await client.post(path, json=body, headers=headers)
                    assert answer.status_code in ({200} if patience != "1" else {200, 504})
                    if answer.status_code == 200:
                        answered[model] += 1

            users = [
                asyncio.create_task(user(model, patience))
                for model in models
                for patience in ["30000"] * 3 + ["1"]  # one who hardly ever waits long enough
            ]
            while not all(task.done() for task in users):
                text = (await client.get("/metrics")).text
                found = re.findall(r"^gateway_calls_in_flight{.*} (\S+)$", text, re.MULTILINE)
                in_flight.append(sum(map(float, found)))
                await asyncio.sleep(0.005)
            await asyncio.gather(*users)
    finally:
        stack.interrupt()
    assert min(answered.values()) >= 3 * 10
    # One at a time, but for calls that take long on a busy machine; without a bound it is four.
    assert median(count for count in in_flight if count) < 3
