"""Tritons that stop answering: noticed at once, their calls sent on, restarted or taken back."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from pathlib import Path

import httpx
import psutil
import pytest

from gateway.errors import TritonUnreachable
from gateway.triton.model_control import ModelVersion
from tests.support import tritons
from tests.support.goldens import cases
from tests.support.stack import serve
from tests.support.tritons import until, users

#: What is promised for a server that stops answering, and for one that answers again.
NOTICED, BACK = 3.0, 5.0


async def test_a_hung_triton_is_noticed_while_a_model_loads_for_ever(tmp_path: Path) -> None:
    options = tritons.options(tmp_path)
    shutil.copytree(options.repository / "plain", options.repository / "stuck")
    async with (
        tritons.started(options) as triton,
        tritons.pooled(triton.grpc_endpoint, repository=options.repository) as calls,
    ):
        (replica,) = calls.pool.replicas
        calls.pool.want(ModelVersion("stuck", 1), {})
        found: list[psutil.Process] = []
        await until(lambda: found.extend(tritons.instances(triton, "stuck")) or found)
        found[0].suspend()
        # Beside that load, others are made and calls are answered.
        shutil.copytree(options.repository / "plain", options.repository / "third")
        third = ModelVersion("third", 1)
        calls.pool.want(third, {})
        await until(lambda: third in replica.ready)
        await calls.one()
        pid = triton.status.pid
        assert pid
        os.kill(pid, signal.SIGSTOP)
        hung = time.monotonic()
        waiting = asyncio.create_task(calls.one(seconds=60))
        assert await until(lambda: not replica.up) < NOTICED
        with pytest.raises(TritonUnreachable):
            await waiting  # not at its deadline
        assert time.monotonic() - hung < NOTICED
        os.kill(pid, signal.SIGCONT)
        assert await until(lambda: calls.pool.able(calls.verified)) < BACK
        await calls.one()
        found[0].resume()
        await until(lambda: ModelVersion("stuck", 1) in replica.ready)


async def test_calls_on_a_hung_replica_are_answered_by_the_other(tmp_path: Path) -> None:
    one, other = (tritons.options(tmp_path, name=name) for name in ("one", "other"))
    async with (
        tritons.started(one) as hanging,
        tritons.started(other) as sound,
        tritons.pooled(
            hanging.grpc_endpoint, sound.grpc_endpoint, repository=one.repository
        ) as calls,
    ):
        async with users(calls, 8) as answers:
            await until(lambda: len(answers) > 100)
            assert hanging.status.pid
            os.kill(hanging.status.pid, signal.SIGSTOP)
            assert await until(lambda: not calls.pool.replicas[0].up) < NOTICED
            so_far = len(answers)
            await until(lambda: len(answers) > so_far + 100)
            os.kill(hanging.status.pid, signal.SIGCONT)
            assert await until(lambda: len(calls.pool.able(calls.verified)) == 2) < BACK
        assert not [error for error in answers if error]


async def test_an_embedded_triton_that_hangs_is_restarted(tmp_path: Path) -> None:
    case = cases("tumor")[0]
    stack = serve(tmp_path, models="tumor")
    try:
        async with httpx.AsyncClient(base_url=stack.url, timeout=30) as client:
            hung = stack.triton
            hung.suspend()
            started = time.monotonic()
            waiting = asyncio.create_task(client.post("/tumor_single_predict", json=case.single))
            while True:
                told = (await client.get("/readyz")).json()
                if any(part.startswith("triton 127.0.0.1:") for part in told["problems"]):
                    break
                await asyncio.sleep(0.05)
            assert time.monotonic() - started < 5.0
            assert (await waiting).status_code == 503
            assert time.monotonic() - started < 5.0
            async with asyncio.timeout(60):
                while (await client.get("/readyz")).status_code != 200:
                    await asyncio.sleep(0.1)
            answer = await client.post("/tumor_single_predict", json=case.single)
            assert answer.status_code == 200
            assert case.wrong(answer.json()["output"]) is None
            assert "gateway_triton_restarts 1.0" in (await client.get("/metrics")).text
        assert not hung.is_running()
        assert "the embedded Triton hangs: killing it" in stack.log.read_text()
    finally:
        stack.interrupt()
