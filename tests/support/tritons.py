"""Embedded Tritons with a small model, and pools in front of them, without a gateway."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from gateway_preprocessor import TensorSpec
from numpy.typing import NDArray

from gateway.deadline import Deadline
from gateway.errors import GatewayError
from gateway.triton.configs import Configs
from gateway.triton.embedded import EmbeddedTriton
from gateway.triton.launcher import EmbeddedOptions
from gateway.triton.model_control import ModelVersion
from gateway.triton.pool import TritonPool, Verified
from tests.support.stack import ROOT

CANARY = ROOT / "deploy/triton/canary"
#: A tiny model, loaded from a copy: its outputs are 2x+1 and the sum of each row.
PLAIN = ModelVersion("plain", 1)
OUTPUTS = (TensorSpec("scaled", "float32", (3,)), TensorSpec("row_sum", "float32", (1,)))
ROWS = np.array([[1, 2, 3], [-4, 5, 0.5]], np.float32)
PATIENCE_SECONDS = 60.0


def options(folder: Path, *, instances: int = 1, name: str = "run") -> EmbeddedOptions:
    """Return options for a Triton with a copy of the small model in `folder`."""
    model = folder / "repository" / PLAIN.model
    if not model.exists():
        shutil.copytree(CANARY / "gateway_canary", model)
        config = f'platform: "onnxruntime_onnx"\nmax_batch_size: 4\n{_IO}instance_group [ {{ '
        (model / "config.pbtxt").write_text(f"{config}kind: KIND_CPU count: {instances} }} ]\n")
    return EmbeddedOptions(
        repository=model.parent,
        python=ROOT / ".venv-models/bin/python",
        backends=ROOT / "deploy/triton/backends",
        run_dir=folder / name,
        canary=CANARY,
    )


_IO = """input [ { name: "x" data_type: TYPE_FP32 dims: [ 3 ] } ]
output [
  { name: "scaled" data_type: TYPE_FP32 dims: [ 3 ] },
  { name: "row_sum" data_type: TYPE_FP32 dims: [ 1 ] }
]
"""


@asynccontextmanager
async def started(chosen: EmbeddedOptions) -> AsyncIterator[EmbeddedTriton]:
    """Run a Triton; a stopped process is continued first, so that it can end."""
    triton = EmbeddedTriton(chosen)
    await triton.start()
    try:
        yield triton
    finally:
        if pid := triton.status.pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        await triton.stop()


def instances(triton: EmbeddedTriton, model: str) -> list[psutil.Process]:
    """Return the processes of a model's instances."""
    found = []
    for process in psutil.Process(triton.status.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if f"models/{model}/1/model.onnx" in process.cmdline():
                found.append(process)
    return found


class Calls:
    """A pool and a version that every replica serves; each load counts as verified at once."""

    def __init__(self, pool: TritonPool, version: ModelVersion) -> None:
        self.pool = pool
        self.verified = Verified(version)

    async def trust(self) -> None:
        """Count every load as verified, until cancelled."""
        while True:
            for replica in self.pool.replicas:
                if loaded := replica.ready.get(self.verified.version):
                    self.verified.loads[replica.endpoint] = loaded.load
            await asyncio.sleep(0.005)

    async def one(
        self,
        seconds: float = 30.0,
        tensors: dict[str, NDArray[Any]] | None = None,
        outputs: tuple[TensorSpec, ...] = OUTPUTS,
    ) -> dict[str, NDArray[Any]]:
        """Make one call; the small model's answer is checked."""
        given = {"x": ROWS} if tensors is None else tensors
        found = await self.pool.infer(self.verified, given, outputs, Deadline.after(seconds))
        if tensors is None:
            np.testing.assert_array_equal(found["scaled"], 2 * ROWS + 1)
        return found


@asynccontextmanager
async def pooled(
    *endpoints: str,
    repository: Path,
    version: ModelVersion = PLAIN,
    **options: Any,
) -> AsyncIterator[Calls]:
    """Run a pool in front of these endpoints; all replicas that it begins with serve the version.

    It reloads failing models unless told not to.
    """
    given = {"reloads": True} | options
    pool = TritonPool(endpoints, Configs(repository), lambda _: {}, **given)
    calls = Calls(pool, version)
    pool.start()
    pool.want(version, {})
    trusting = asyncio.create_task(calls.trust())
    try:
        await until(lambda: 0 < len(pool.replicas) == len(pool.able(calls.verified)))
        yield calls
    finally:
        trusting.cancel()
        await asyncio.gather(trusting, return_exceptions=True)
        await pool.close()


async def until(holds: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> float:
    """Wait until something holds; return the seconds that it took."""
    started_at = time.monotonic()
    while not holds():
        assert time.monotonic() < started_at + seconds, "it did not happen in time"
        await asyncio.sleep(0.01)
    return time.monotonic() - started_at


@asynccontextmanager
async def users(calls: Calls, number: int = 4) -> AsyncIterator[list[GatewayError | None]]:
    """Call all the while; gives each call's failure, None for a right answer."""
    found: list[GatewayError | None] = []
    stop = asyncio.Event()

    async def user() -> None:
        while not stop.is_set():
            try:
                await calls.one()
            except GatewayError as error:
                found.append(error)
                await asyncio.sleep(0.02)
            else:
                found.append(None)

    asking = [asyncio.create_task(user()) for _ in range(number)]
    try:
        yield found
    finally:
        stop.set()
        await asyncio.gather(*asking)
