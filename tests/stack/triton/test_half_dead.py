"""Instances that die while Triton calls their model ready: who notices, and what is lost."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from gateway_preprocessor import TensorSpec
from prometheus_client import REGISTRY

from gateway.errors import InferenceFailed
from gateway.triton.model_control import ModelVersion
from tests.support import tritons
from tests.support.goldens import cases
from tests.support.stack import ROOT, Stack, serve
from tests.support.tritons import Calls, instances, until, users

TWO = 2
TEXT = ModelVersion("minilm", 1)
VECTORS = (TensorSpec("embedding__0", "float32", (384,)),)


@pytest.fixture
async def halves(tmp_path: Path) -> AsyncIterator[tuple[tritons.EmbeddedTriton, Calls]]:
    """A pool in front of a Triton with two instances of the small model."""
    options = tritons.options(tmp_path, instances=TWO)
    async with (
        tritons.started(options) as triton,
        tritons.pooled(triton.grpc_endpoint, repository=options.repository) as calls,
    ):
        yield triton, calls


async def test_one_of_two_instances_dead_costs_no_call_and_is_mended(
    halves: tuple[tritons.EmbeddedTriton, Calls],
) -> None:
    triton, calls = halves
    (replica,) = calls.pool.replicas
    before, reloads = instances(triton, "plain"), _reloads("plain")
    assert len(before) == TWO
    ailing = False
    async with users(calls) as answers:
        await until(lambda: len(answers) > 50)
        before[0].kill()

        def mended() -> bool:
            nonlocal ailing
            ailing |= "plain" in replica.ailing
            return len({*instances(triton, "plain")} - {*before}) == TWO

        await until(mended)
        so_far = len(answers)
        await until(lambda: len(answers) > so_far + 100)
    assert ailing
    assert not [error for error in answers if error]
    assert not replica.ailing
    assert _reloads("plain") == reloads + 1


async def test_a_dead_instance_is_named_while_nobody_may_reload_it(tmp_path: Path) -> None:
    options = tritons.options(tmp_path, instances=TWO)
    async with (
        tritons.started(options) as triton,
        tritons.pooled(triton.grpc_endpoint, repository=options.repository, reloads=False) as calls,
    ):
        (replica,) = calls.pool.replicas
        before = instances(triton, "plain")
        before[0].kill()
        async with users(calls):
            await until(lambda: "plain" in replica.ailing)
        assert "reload it" in replica.ailing["plain"]
        assert before[1] in instances(triton, "plain")


async def test_a_model_that_is_bad_on_some_inputs_is_reloaded_ever_less(tmp_path: Path) -> None:
    """Token ids beyond the vocabulary fail in the graph: INTERNAL, each time."""
    repository = ROOT / "model_repository"
    options = dataclasses.replace(tritons.options(tmp_path), repository=repository)
    async with (
        tritons.started(options) as triton,
        tritons.pooled(triton.grpc_endpoint, repository=repository, version=TEXT) as calls,
    ):
        (replica,) = calls.pool.replicas
        bad = _tokens(10**6)
        reloads = _reloads("minilm")

        async def fail() -> None:
            with pytest.raises(InferenceFailed):
                await calls.one(tensors=bad, outputs=VECTORS)

        # Bad inputs among good ones condemn nobody.
        for _ in range(4):
            for _ in range(6):
                await calls.one(tensors=_tokens(101), outputs=VECTORS)
            await fail()
        await asyncio.sleep(0.1)
        assert _reloads("minilm") == reloads
        assert not replica.ailing
        # Nothing but bad ones do; but then not again and again.
        replica.inference.health.records.clear()
        await asyncio.gather(*(fail() for _ in range(8)))
        assert _reloads("minilm") == reloads + 1
        await asyncio.gather(*(fail() for _ in range(8)))
        assert _reloads("minilm") == reloads + 1
        assert "next reload in" in replica.ailing["minilm"]
        # Calls that Triton had put into one batch failed together, and it lives.
        assert triton.status.restarts == 0


def _tokens(token: int) -> dict[str, np.ndarray]:
    ids = np.full((1, 8), token, np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def _reloads(model: str) -> float:
    return REGISTRY.get_sample_value("gateway_model_reloads_total", {"model": model}) or 0.0


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    running = serve(tmp_path_factory.mktemp("half"), models="minilm")
    yield running
    running.interrupt()


async def test_readyz_names_it_and_clients_do_not_notice(stack: Stack) -> None:
    case = cases("minilm")[0]
    stop, statuses, named = asyncio.Event(), [], set()

    async def user(client: httpx.AsyncClient) -> None:
        while not stop.is_set():
            answer = await client.post("/minilm_single_predict", json=case.single)
            statuses.append(answer.status_code)

    def stubs() -> set[int]:
        return {p.pid for p, line in stack.commands.items() if "models/minilm/1/model.onnx" in line}

    before = stubs()
    assert len(before) == TWO
    async with httpx.AsyncClient(base_url=stack.url, timeout=60) as client:
        asking = [asyncio.create_task(user(client)) for _ in range(4)]
        await asyncio.sleep(0.5)
        os.kill(min(before), signal.SIGKILL)
        async with asyncio.timeout(60):
            while len(stubs() - before) < TWO:
                answer = await client.get("/readyz")
                assert answer.status_code == 200
                named |= answer.json()["problems"].keys()
                await asyncio.sleep(0.02)
        stop.set()
        await asyncio.gather(*asking)
        async with asyncio.timeout(10):
            while (await client.get("/readyz")).json()["status"] != "ready":
                await asyncio.sleep(0.1)
    assert {*statuses} == {200}
    assert [name for name in named if name.startswith("minilm on triton 127.0.0.1:")]


@pytest.mark.parametrize("reloads", [False, True])
async def test_gateways_that_share_a_triton_lose_no_call_by_a_reload(
    halves: tuple[tritons.EmbeddedTriton, Calls], tmp_path: Path, reloads: bool
) -> None:
    """One of them reloads, or both at once: what one unloads, the other waits for."""
    triton, calls = halves
    repository = tmp_path / "repository"
    before = instances(triton, "plain")
    async with (
        tritons.pooled(triton.grpc_endpoint, repository=repository, reloads=reloads) as others,
        users(calls, 3) as ours,
        users(others, 3) as theirs,
    ):
        await until(lambda: len(ours) > 50 and len(theirs) > 50)
        before[0].kill()
        await until(lambda: len({*instances(triton, "plain")} - {*before}) == TWO)
        so_far = len(ours), len(theirs)
        await until(lambda: len(ours) > so_far[0] + 500 and len(theirs) > so_far[1] + 500)
    assert not [error for error in ours + theirs if error]
