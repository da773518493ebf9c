"""The embedded Triton's life: starts, proofs, crashes, and what it leaves behind (nothing)."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from tritonclient.grpc import aio as triton_grpc

from gateway.triton import launcher
from gateway.triton.embedded import EmbeddedTriton
from gateway.triton.launcher import EmbeddedOptions
from gateway.triton.layout import EmbeddedTritonError
from tests.support.stack import ROOT

CANARY = ROOT / "deploy/triton/canary"


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Any]]:
    """Start Tritons that are stopped after the test, whatever happens."""
    async with contextlib.AsyncExitStack() as stack:

        async def begin(options: EmbeddedOptions) -> EmbeddedTriton:
            triton = EmbeddedTriton(options)
            stack.push_async_callback(triton.stop)
            await triton.start()
            return triton

        yield begin


def family(triton: EmbeddedTriton) -> list[psutil.Process]:
    server = psutil.Process(triton.status.pid)
    return [server, *server.children(recursive=True)]


def regions(options: EmbeddedOptions) -> list[str]:
    return [name for name in os.listdir("/dev/shm") if name.startswith(options.identity)]  # noqa: PTH208, S108


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


def gone(processes: list[psutil.Process]) -> bool:
    def ended(process: psutil.Process) -> bool:
        try:
            return process.status() == psutil.STATUS_ZOMBIE  # whoever adopted it has yet to ask
        except psutil.NoSuchProcess:
            return True

    return all(ended(process) for process in processes)


async def load(triton: EmbeddedTriton) -> None:
    async with triton_grpc.InferenceServerClient(triton.grpc_endpoint) as client:
        await client.load_model("plain")
        assert await client.is_model_ready("plain")


async def test_two_at_once_each_for_itself(
    options: EmbeddedOptions, start: Callable[..., Any], tmp_path: Path
) -> None:
    other = replace(options, run_dir=tmp_path / "other")
    tritons = await asyncio.gather(start(options), start(other))
    await asyncio.gather(*map(load, tritons))
    processes = [family(triton) for triton in tritons]
    for triton, (server, *stubs) in zip(tritons, processes, strict=True):
        assert triton.status.state == "running"
        assert stubs
        assert os.getsid(server.pid) == server.pid  # Ctrl-C goes to the gateway alone
        listening = {c.laddr for c in server.net_connections() if c.status == "LISTEN"}
        assert {f"{a.ip.removeprefix('::ffff:')}:{a.port}" for a in listening} == {
            triton.grpc_endpoint,
            triton.http_endpoint,
            triton.metrics_endpoint,
        }
        assert not any(a.port >= 32_768 for a in listening)
        assert stubs[0].environ()["GATEWAY_TRITON_THREADS"] == "1"
    assert regions(options)
    assert regions(other)

    with pytest.raises(EmbeddedTritonError, match="another embedded Triton uses"):
        await EmbeddedTriton(options).start()
    taken = int(tritons[0].grpc_endpoint.rpartition(":")[2])
    third = EmbeddedTriton(replace(options, run_dir=tmp_path / "third", grpc_port=taken))
    with pytest.raises(EmbeddedTritonError, match=r"already in use|another server"):
        await third.start()
    assert tritons[0].status.state == "running"

    await asyncio.gather(*(triton.stop() for triton in tritons))
    assert all(triton.status.state == "stopped" for triton in tritons)
    assert regions(options) + regions(other) == []
    await until(lambda: gone([process for group in processes for process in group]))


async def test_a_killed_server_comes_back_on_the_same_ports(
    options: EmbeddedOptions, start: Callable[..., Any]
) -> None:
    triton = await start(options)
    await load(triton)
    before, endpoint = family(triton), triton.grpc_endpoint
    os.kill(triton.status.pid, signal.SIGKILL)
    await until(lambda: triton.status.state == "restarting")
    assert triton.status.reason == "tritonserver was ended by SIGKILL"
    await until(lambda: triton.status.state == "running")
    await load(triton)
    assert (triton.status.restarts, triton.grpc_endpoint) == (1, endpoint)
    assert gone(before)

    os.kill(triton.status.pid, signal.SIGKILL)
    await until(lambda: triton.status.restarts == 2)
    await triton.stop()  # in the middle of it
    assert triton.status.state == "stopped"
    assert regions(options) == []


async def test_a_start_that_keeps_failing_is_tried_again(
    options: EmbeddedOptions, start: Callable[..., Any], tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    shutil.copytree(CANARY, canary)
    triton = await start(replace(options, canary=canary))
    hidden = canary.rename(tmp_path / "hidden")
    os.kill(triton.status.pid, signal.SIGKILL)
    await until(lambda: "No such file" in triton.status.reason)
    assert triton.status.state == "restarting"
    hidden.rename(canary)
    await until(lambda: triton.status.state == "running")
    assert triton.status.restarts >= 2


async def test_it_dies_with_its_parent(options: EmbeddedOptions) -> None:
    code = f"""
import asyncio, sys
from pathlib import PosixPath
from tritonclient.grpc import aio
from gateway.triton.embedded import *

async def main():
    triton = EmbeddedTriton({options!r})
    await triton.start()
    async with aio.InferenceServerClient(triton.grpc_endpoint) as client:
        await client.load_model("plain")
    print(triton.status.pid, file=sys.stderr, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stderr=subprocess.PIPE
    )
    assert parent.stderr is not None
    server = psutil.Process(int(await parent.stderr.readline()))
    processes = [server, *server.children(recursive=True)]
    assert len(processes) > 1
    parent.kill()
    await parent.wait()
    await until(lambda: gone(processes), seconds=10)


async def test_what_a_predecessor_left(options: EmbeddedOptions, start: Callable[..., Any]) -> None:
    region = Path("/dev/shm") / f"{options.identity}left-behind"  # noqa: S108
    stranger = region.with_name("gateway-of-somebody-else")
    region.write_bytes(b"")
    stranger.write_bytes(b"")
    options.run_dir.mkdir()
    log = options.run_dir / "triton.log"
    log.write_bytes(b"old" * launcher.LOG_ROTATED_AT)
    try:
        await start(options)
        assert not region.exists()
        assert stranger.exists()
        assert log.with_suffix(".log.1").read_bytes()[:3] == b"old"
        assert b"Started GRPCInferenceService" in log.read_bytes()
    finally:
        stranger.unlink()


WRONG = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        config.add_input({{"name": "x", "data_type": "TYPE_FP32", "dims": [3]}})
        config.add_output({{"name": "scaled", "data_type": "TYPE_FP32", "dims": [3]}})
        config.add_output({{"name": "row_sum", "data_type": "TYPE_FP32", "dims": [1]}})
        return config

    def execute(self, requests):
        return [
            pb_utils.InferenceResponse([
                pb_utils.Tensor("scaled", np.zeros({shape}, np.float32)),
                pb_utils.Tensor("row_sum", np.zeros((2, 1), np.float32)),
            ])
            for _ in requests
        ]
"""


async def test_the_canary_catches_broken_backends(options: EmbeddedOptions, tmp_path: Path) -> None:
    cases = {
        "zeros": (WRONG.format(shape=(2, 3)), "the canary's output scaled should be .* but is"),
        "empty": (WRONG.format(shape=(0, 3)), "the canary's output scaled should be .* but is"),
        "import": ("import no_such_module", "the canary failed: .*no_such_module"),
        "absent": (None, "the canary failed: .*onnxruntime"),
    }

    async def refuse(name: str, backend: str | None, reason: str) -> None:
        folder = tmp_path / name
        (folder / "backends").mkdir(parents=True)
        if backend is not None:
            (folder / "backends/onnxruntime").mkdir()
            (folder / "backends/onnxruntime/model.py").write_text(backend)
        broken = replace(options, backends=folder / "backends", run_dir=folder / "run")
        triton = EmbeddedTriton(broken)
        with pytest.raises(EmbeddedTritonError, match=f"(?s){reason}"):
            await triton.start()
        assert triton.status.state == "stopped"
        assert regions(broken) == []

    await asyncio.gather(*(refuse(name, *case) for name, case in cases.items()))


async def test_a_repository_that_is_not_there(options: EmbeddedOptions) -> None:
    with pytest.raises(EmbeddedTritonError, match="absent is not a folder"):
        await EmbeddedTriton(replace(options, repository=Path("absent"))).start()
