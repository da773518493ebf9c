"""Instances dead when their release is verified: on one of two replicas, and on the only one."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import httpx
import psutil
from tritonclient.grpc import aio as triton_grpc

from tests.support import tritons
from tests.support.goldens import cases
from tests.support.repository import copied
from tests.support.stack import serve

CASE = cases("tumor")[0]
PATIENCE_SECONDS = 30


async def problems(client: httpx.AsyncClient, part: str, *, named: bool) -> dict[str, str]:
    """Wait until /readyz names a part, or does not any more."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            found: dict[str, str] = (await client.get("/readyz")).json()["problems"]
            if (part in found) is named:
                return found
            await asyncio.sleep(0.05)


async def status(client: httpx.AsyncClient) -> int:
    answer = await client.post("/tumor_single_predict", json=CASE.single)
    if answer.status_code == 200:
        assert CASE.wrong(answer.json()["output"]) is None
    return answer.status_code


async def test_a_bad_replica_does_not_take_the_release_from_the_good_one(tmp_path: Path) -> None:
    good, bad = (tritons.options(tmp_path, name=name) for name in ("good", "bad"))
    repository = copied(good.repository, ["tumor"])
    async with tritons.started(good) as first, tritons.started(bad) as second:
        endpoints = f"{first.grpc_endpoint},{second.grpc_endpoint}"
        stack = await asyncio.to_thread(
            serve, tmp_path / "run", repository=str(repository), models="tumor", triton=endpoints
        )
        part = f"triton {second.grpc_endpoint}"
        try:
            async with httpx.AsyncClient(base_url=stack.url, timeout=30) as client:
                await problems(client, part, named=False)
                server = psutil.Process(second.status.pid)
                (instance,) = tritons.instances(second, "tumor")
                server.suspend()
                instance.kill()
                await problems(client, part, named=True)
                server.resume()
                await problems(client, f"tumor on {part}", named=True)
                until = time.monotonic() + 3
                while time.monotonic() < until:
                    assert await status(client) == 200
                    assert "tumor/1" not in (await client.get("/readyz")).json()["problems"]
                # Once somebody has mended it, it is verified: it serves when the other one dies.
                async with triton_grpc.InferenceServerClient(second.grpc_endpoint) as operator:
                    await operator.unload_model("tumor")
                    await operator.load_model("tumor")
                await problems(client, f"tumor on {part}", named=False)
                for other in tritons.instances(first, "tumor"):
                    other.kill()
                assert {await status(client) for _ in range(20)} == {200}
        finally:
            stack.interrupt()


async def test_the_only_replica_is_mended_and_verified(tmp_path: Path) -> None:
    stack = serve(tmp_path, models="tumor")
    try:
        async with httpx.AsyncClient(base_url=stack.url, timeout=30) as client:
            server = stack.triton
            (instance,) = (
                p for p, line in stack.commands.items() if "models/tumor/1/model.onnx" in line
            )
            server.suspend()
            instance.kill()
            await problems(client, f"triton {stack.triton_endpoint}", named=True)
            server.resume()
            async with asyncio.timeout(PATIENCE_SECONDS / 2):  # not when a rejection is retried
                while await status(client) != 200:
                    await asyncio.sleep(0.1)
        assert server.is_running()
    finally:
        stack.interrupt()
