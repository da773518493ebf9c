"""Workers that crash, hang or fork: what was asked of them is asked again, and the guilty fails."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gateway_preprocessor import Payload, Prepared
from gateway_preprocessor.wire import WorkerFailure

from gateway.preprocessing.isolation import settled
from gateway.preprocessing.losses import Poisonous, Suspect
from gateway.preprocessing.memory import LOOK, resident
from gateway.preprocessing.pool import WorkerPool
from gateway.preprocessing.status import WorkerState
from tests.support import poison

#: Far more than anything here takes.
PATIENCE = 60


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[WorkerPool]:
    with tempfile.TemporaryDirectory() as folder:  # short, for the sockets' sake
        pool = WorkerPool(poison.options(Path(folder), **options))
        await pool.start()
        try:
            await eventually(lambda: not pool.dead)
            yield pool
        finally:
            await pool.close()


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():
            await asyncio.sleep(0.02)


def payloads(*texts: str) -> list[Payload]:
    return [Payload(json.dumps(text).encode()) for text in texts]


def waits(count: int) -> list[asyncio.Future[Any]]:
    return [asyncio.get_running_loop().create_future() for _ in range(count)]


async def ask(pool: WorkerPool, *texts: str) -> list[Any]:
    """Ask as a batcher does, each text for a request of its own; wait for the outcomes."""
    async with asyncio.timeout(PATIENCE):
        return await settled(await pool.preprocess(payloads(*texts), waits(len(texts))))


def kinds(results: Sequence[Any]) -> list[type]:
    return [type(result) for result in results]


async def test_one_that_crashes_fails_alone() -> None:
    async with running() as pool:
        found = await ask(pool, "one", "crash", "two")
        assert kinds(found) == [Prepared, Poisonous, Prepared]
        assert "cost two worker processes" in str(found[1])
        assert "the worker died" in str(found[1])


async def test_one_that_hangs_fails_alone() -> None:
    async with running(call_seconds=0.5) as pool:
        found = await ask(pool, "hang", "one")
        assert kinds(found) == [Poisonous, Prepared]
        assert "no reply within 0.5" in str(found[0])


async def test_a_context_that_cannot_be_written_kills_nobody() -> None:
    """It is the preprocessor's fault, and told as such: no worker has died."""
    async with running() as pool:
        before = set(pool.pids)
        found = await ask(pool, "one", "unwritable")
        assert kinds(found) == [Prepared, WorkerFailure]
        assert "broke off the connection" in str(found[1])
        assert set(pool.pids) == before
        await eventually(lambda: not pool.dead)


async def test_an_accident_is_nobody_s_fault() -> None:
    async with running() as pool:
        file = Path(tempfile.mkdtemp()) / "happened"
        assert kinds(await ask(pool, "one", f"once {file}")) == [Prepared, Prepared]


async def test_a_pool_of_one() -> None:
    async with running(size=1) as pool:
        assert kinds(await ask(pool, "crash", "one")) == [Poisonous, Prepared]


async def test_a_row_that_crashes_afterwards_fails_alone() -> None:
    async with running() as pool:
        outputs = {"length": np.ones((3, 1), np.int64)}
        contexts = ["one", "crash", "two"]
        found = await settled(await pool.postprocess(outputs, contexts, waits(3)))
        assert kinds(found) == [bytes, Poisonous, bytes]
        assert [json.loads(found[at]).split()[0] for at in (0, 2)] == ["one", "two"]


async def test_callers_that_name_no_request_get_outcomes() -> None:
    async with running() as pool:
        found = await pool.preprocess(payloads("one", "crash"))
        assert kinds(found) == [Prepared, Poisonous]


async def test_neighbours_keep_a_worker_while_suspects_are_tried() -> None:
    """Both workers are lost to poison at once; each trial takes the whole bound."""
    async with running(call_seconds=3) as pool:
        first = [asyncio.create_task(pool.preprocess(payloads("hang"), waits(1))) for _ in "ab"]
        suspects = [(await each)[0] for each in first]
        assert kinds(suspects) == [Suspect, Suspect]
        await eventually(lambda: not pool.dead)
        answered = 0
        while not any(suspect.answer.done() for suspect in suspects):
            assert kinds(await ask(pool, "one", "two")) == [Prepared, Prepared]
            answered += 1
            assert pool.pids, "at most one worker at a time is lost to suspects"
        assert answered > 10
        assert not all(suspect.answer.done() for suspect in suspects)
        assert kinds(await settled(suspects)) == [Poisonous, Poisonous]


async def test_a_batch_of_poison_costs_few_workers() -> None:
    async with running(call_seconds=0.5) as pool:
        (wait,) = waits(1)
        seen = set(pool.pids)
        calls = [await pool.preprocess(payloads("hang"), [wait])]
        calls += [await pool.preprocess(payloads("hang"), [wait]) for _ in range(5)]
        assert kinds([found for (found,) in calls]) == [Suspect] * 6
        found = await settled(calls[0])
        assert kinds(found) == [Poisonous]
        wait.cancel()  # as the request does that was failed
        for rest in calls[1:]:
            (outcome,) = await settled(rest)
            assert "was not asked again" in str(outcome)
        await eventually(lambda: not pool.dead and len(pool.pids) == 2)
        assert len(set(pool.pids) - seen) <= 2


async def test_the_rest_of_an_innocent_request_is_asked_afterwards() -> None:
    async with running() as pool:
        (wait,) = waits(1)
        file = Path(tempfile.mkdtemp()) / "happened"
        first = await pool.preprocess(payloads(f"once {file}"), [wait])
        rest = await pool.preprocess(payloads("one", "two"), [wait, *waits(1)])
        assert kinds(rest) == [Suspect, Prepared]
        assert kinds(await settled([*first, *rest])) == [Prepared] * 3


async def test_what_nobody_waits_for_is_not_tried_again() -> None:
    async with running() as pool:
        (wait,) = waits(1)
        call = asyncio.create_task(pool.preprocess(payloads("sleep 0.5", "crash"), [wait, wait]))
        await asyncio.sleep(0.1)
        wait.cancel()
        found = await settled(await call)
        assert not any(isinstance(each, Poisonous | Prepared) for each in found)
        await eventually(lambda: not pool.dead)
        before = set(pool.pids)
        assert kinds(await ask(pool, "one")) == [Prepared]
        assert set(pool.pids) == before


async def test_a_worker_is_not_left_to_a_call_that_nobody_waits_for() -> None:
    async with running(call_seconds=3600) as pool:
        hung = waits(2)
        calls = [asyncio.create_task(pool.preprocess(payloads("hang"), [w])) for w in hung]
        await asyncio.sleep(0.2)
        neighbours = asyncio.create_task(ask(pool, "one", "two"))
        for wait in hung:
            wait.cancel()
        assert kinds(await neighbours) == [Prepared, Prepared]
        await asyncio.gather(*calls)


async def test_a_quick_call_outlives_its_requests() -> None:
    async with running() as pool:
        before, (wait,) = set(pool.pids), waits(1)
        call = asyncio.create_task(pool.preprocess(payloads("sleep 1"), [wait]))
        wait.cancel()
        assert kinds(await call) == [Prepared]
        assert set(pool.pids) == before


async def test_calls_behind_a_hang_are_not_suspects() -> None:
    async with running(size=1, call_seconds=1) as pool:
        hung = asyncio.create_task(pool.preprocess(payloads("hang"), waits(1)))
        await asyncio.sleep(0.1)
        behind = asyncio.create_task(pool.preprocess(payloads("one", "two"), waits(2)))
        assert kinds(await hung) == [Suspect]
        assert kinds(await behind) == [Prepared, Prepared]  # no Suspects: asked as they were


async def test_a_dead_worker_s_children_keep_its_socket() -> None:
    async with running(call_seconds=3600) as pool:
        file = Path(tempfile.mkdtemp()) / "child"
        try:
            started = time.monotonic()
            found = await ask(pool, f"orphan {file}", "one")
            assert kinds(found) == [Poisonous, Prepared]
            assert time.monotonic() - started < PATIENCE
            await eventually(lambda: not pool.dead)
            assert pool.status.state is WorkerState.READY
        finally:
            with suppress(ProcessLookupError):
                os.kill(int(file.read_text()), signal.SIGKILL)


@pytest.mark.parametrize("size", [1, 2])
async def test_a_worker_that_has_grown_is_replaced_and_nobody_notices(size: int) -> None:
    async with running(size=size, growth_bytes=64 << 20) as pool:
        before = set(pool.pids)
        await asyncio.sleep(2 * LOOK)  # it is known how large they were
        assert kinds(await ask(pool, "grow 100")) == [Prepared]
        async with asyncio.timeout(PATIENCE):
            while set(pool.pids) == before or pool.dead:
                calls = [pool.preprocess(payloads("one", "two"), waits(2)) for _ in range(3)]
                for found in await asyncio.gather(*calls):
                    assert kinds(found) == [Prepared, Prepared]  # no call was lost
        assert len(set(pool.pids) - before) == 1
        assert all(resident(pid) < 100 << 20 for pid in pool.pids)
