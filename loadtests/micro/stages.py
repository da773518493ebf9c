"""Each stage of a request by itself, in this process: wall and CPU time of one operation.

`python -m loadtests.micro.stages TEXTS TRITON SECONDS` prints microseconds as JSON: `….wall` is
what a request waits, `….cpu` what of it this process computes.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import uvloop
from gateway_preprocessor import Payload, Prepared, TensorSpec
from tritonclient.grpc import aio as triton

from gateway.deadline import Deadline
from gateway.http import envelope
from gateway.preprocessing.installed import load
from gateway.preprocessing.pool import WorkerPool
from gateway.preprocessing.worker_processes import PoolOptions
from gateway.releases.manifest import Batching
from gateway.serving.packing import Bounds, choose, length_of, stack
from gateway.serving.queue import WINDOW
from gateway.triton.channel import Server
from gateway.triton.inference import Inference
from gateway.triton.model_control import ModelVersion
from loadtests.micro.exchange import exchanges

DISTRIBUTION = "minilm-preprocessor"
#: Rows of one call to Triton.
ROWS = 8
WARM_UPS = 20


class Stage(NamedTuple):
    """One operation, of a request or of as many `rows` as share it; asynchronous if it says so."""

    name: str
    run: Callable[[], Any]
    rows: int = 1


async def measure(texts: list[str], endpoint: str, seconds: float) -> dict[str, float]:
    """Measure every stage, each for its share of the seconds."""
    with tempfile.TemporaryDirectory() as folder:
        pool = WorkerPool(
            PoolOptions(Path(sys.executable), DISTRIBUTION, Path(folder), 1, 60.0, 10.0)
        )
        await pool.start()  # first: gRPC's threads would be in the way of its workers
        client, inference = triton.InferenceServerClient(endpoint), Inference(Server(endpoint))
        try:
            async with exchanges(Path(folder)) as (bare, own):
                stages = [
                    Stage("HTTP exchange, bare Tornado", bare),
                    Stage("HTTP exchange, the gateway's base handler", own),
                    *_inline(texts),
                    *_worker(texts, pool),
                    *_grpc(client, inference),
                ]
                return await _all(stages, seconds / len(stages))
        finally:
            await client.close()
            await inference.close()
            await pool.close()


async def _all(stages: list[Stage], seconds: float) -> dict[str, float]:
    found = {}
    for stage in stages:
        for name, value in (await _timed(stage, seconds)).items():
            found[f"{stage.name}.{name}"] = round(value, 2)
    return found


async def _timed(stage: Stage, seconds: float) -> dict[str, float]:
    """Repeat one operation; returns microseconds a row."""
    for _ in range(WARM_UPS):
        await _once(stage)
    count = 0
    cpu, started = time.process_time(), time.perf_counter()
    while time.perf_counter() - started < seconds:
        await _once(stage)
        count += stage.rows
    wall = time.perf_counter() - started
    return {"wall": wall / count * 1e6, "cpu": (time.process_time() - cpu) / count * 1e6}


async def _once(stage: Stage) -> None:
    result = stage.run()
    if isinstance(result, Awaitable):
        await result


def _inline(texts: list[str]) -> list[Stage]:
    """Return what a gateway process can do by itself."""
    _, runner = load(DISTRIBUTION)
    specs, media = runner.preprocessor.tensors, runner.preprocessor.media_types
    bodies = itertools.cycle([msgspec.json.encode({"input": text}) for text in texts])
    batch = msgspec.json.encode({"inputs": texts[:32]})
    payloads = itertools.cycle(_payloads(texts))
    prepared = [item for item in runner.prepare(_payloads(texts)) if isinstance(item, Prepared)]
    lengths = [length_of(specs, item.tensors) for item in prepared[:WINDOW]]
    bounds, fixed = Bounds(ROWS, 4096), Batching().call_tokens
    packs = itertools.cycle([p.tensors for p in prepared[i : i + ROWS]] for i in range(0, 160, 8))
    embeddings = {"embedding__0": np.random.default_rng(0).random((ROWS, 384), np.float32)}
    return [
        Stage(
            "envelope, single", lambda: envelope.single("application/json", next(bodies), media, 1)
        ),
        Stage(
            "envelope, 32 rows", lambda: envelope.batch("application/json", batch, media, 32), 32
        ),
        Stage("tokenise, inline", lambda: runner.prepare([next(payloads)])),
        Stage(
            f"choose {ROWS} of {WINDOW}",
            lambda: choose(lengths, bounds, fixed),
            ROWS,
        ),
        Stage(f"stack and pad {ROWS}", lambda: stack(specs, next(packs)), ROWS),
        Stage(
            f"postprocess {ROWS}, inline", lambda: runner.finish(embeddings, [None] * ROWS), ROWS
        ),
    ]


def _worker(texts: list[str], pool: WorkerPool) -> list[Stage]:
    """Return the same through a worker process and its Unix socket."""
    payloads = itertools.cycle(_payloads(texts))
    eight = _payloads(texts[:ROWS])
    embeddings = {"embedding__0": np.random.default_rng(0).random((ROWS, 384), np.float32)}
    return [
        Stage("tokenise, worker", lambda: pool.preprocess([next(payloads)])),
        Stage(f"tokenise {ROWS}, worker", lambda: pool.preprocess(eight), ROWS),
        Stage(
            f"postprocess {ROWS}, worker", lambda: pool.postprocess(embeddings, [None] * ROWS), ROWS
        ),
    ]


def _grpc(client: triton.InferenceServerClient, inference: Inference) -> list[Stage]:
    """Return a call of a tiny model: as tritonclient makes it, and as the gateway does."""
    row = np.ones((1, 30), np.float32)
    version = ModelVersion("tumor", 1)
    outputs = (TensorSpec("probabilities", "float32", (2,)),)

    async def library() -> None:
        tensor = triton.InferInput("features", list(row.shape), "FP32")
        tensor.set_data_from_numpy(row)
        wanted = [triton.InferRequestedOutput("probabilities")]
        result = await client.infer("tumor", [tensor], "1", outputs=wanted, client_timeout=10)
        result.as_numpy("probabilities")

    return [
        Stage("gRPC call, tritonclient", library),
        Stage(
            "gRPC call, the gateway's",
            lambda: inference.infer(version, {"features": row}, outputs, Deadline.after(10)),
        ),
    ]


def _payloads(texts: list[str]) -> list[Payload]:
    return [Payload(msgspec.json.encode(text)) for text in texts]


def main(texts: str, endpoint: str, seconds: str) -> None:
    """Print what was measured."""
    inputs = msgspec.json.decode(Path(texts).read_bytes(), type=list[str])
    found = uvloop.run(measure(inputs, endpoint, float(seconds)))
    print(msgspec.json.encode(found).decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
