"""Gateways that share a repository and a host, and Triton replicas, any of which may go away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.support import cli
from tests.support.goldens import cases
from tests.support.load import load
from tests.support.repository import copied, second_release
from tests.support.stack import Stack, serve

CASE = cases("tumor")[0]
PACKAGE = "tumor-preprocessor"
WORKERS = 2
PATIENCE_SECONDS = 60


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    second_release(copied(folder / "repository", ["tumor"]) / "tumor")
    return folder


@pytest.fixture(scope="module")
def replicas(root: Path) -> Iterator[list[Stack]]:
    """Two gateways, each with a Triton of its own, that others use, too."""
    stacks = [serve(root / name, repository=str(root / "repository")) for name in ("r1", "r2")]
    yield stacks
    for stack in stacks:
        stack.interrupt()


@pytest.fixture(scope="module")
def gateways(root: Path, replicas: list[Stack]) -> Iterator[list[Stack]]:
    """Two gateways in front of both replicas, with one run folder: they share their workers."""
    endpoints = ",".join(replica.triton_endpoint for replica in replicas)
    stacks = [
        serve(
            root / name,
            repository=str(root / "repository"),
            triton=endpoints,
            run_dir=str(root / "shared"),
            workers=str(WORKERS),
        )
        for name in ("g1", "g2")
    ]
    yield stacks
    for stack in stacks:
        if stack.process.poll() is None:
            stack.interrupt()


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await asyncio.to_thread(holds):
            await asyncio.sleep(0.05)


def traffic(stack: Stack) -> dict[str, int]:
    with stack.client() as client:
        shown: dict[str, int] = client.get("/models/tumor").json()["traffic"]
    return shown


def test_gateways_of_one_host_share_their_workers(gateways: list[Stack]) -> None:
    first, second = gateways
    assert len(first.workers(PACKAGE)) == WORKERS
    assert not second.workers(PACKAGE)
    for stack in gateways:
        with stack.client() as client:
            assert client.post("/tumor_single_predict", json=CASE.single).status_code == 200


@pytest.mark.parametrize("weights", [{"2": 100}, {"1": 25, "2": 75}, {"1": 100}])
async def test_all_follow_one_change(
    root: Path, replicas: list[Stack], gateways: list[Stack], weights: dict[str, int]
) -> None:
    split = [f"{name}={weight}" for name, weight in weights.items()]
    command = ["release", "traffic", "tumor", *split, "--repository", str(root / "repository")]
    command += [word for stack in replicas + gateways for word in ("--url", stack.url)]
    async with load(gateways[0]), load(gateways[1]):
        told = await asyncio.to_thread(cli.gateway, *command)
        assert told.returncode == 0, told.stderr
        assert all(traffic(stack) == weights for stack in replicas + gateways)
    assert f": in force in all {len(replicas + gateways)} gateways\n" in told.stdout


async def test_a_killed_replica_costs_no_request(
    replicas: list[Stack], gateways: list[Stack]
) -> None:
    async with load(gateways[1]) as answers:
        await asyncio.sleep(0.5)
        replicas[0].triton.kill()
        so_far = len(answers)
        await eventually(lambda: len(answers) > so_far + 100)


async def test_another_gateway_takes_the_workers_over(gateways: list[Stack]) -> None:
    first, second = gateways
    workers = first.workers(PACKAGE)
    async with load(second) as answers:
        await asyncio.sleep(0.5)
        first.process.kill()
        first.process.wait()
        await eventually(lambda: len(second.workers(PACKAGE)) == WORKERS)
        so_far = len(answers)
        await eventually(lambda: len(answers) > so_far + 100)
    assert not psutil.wait_procs(workers, timeout=10)[1]
