"""Changes of a served repository, and when they have taken effect."""

from __future__ import annotations

import asyncio
import random
import shutil
from contextlib import suppress
from pathlib import Path

import httpx
from tritonclient.grpc.aio import InferenceServerClient

from gateway.releases import rollout
from gateway.triton.configs import Configs
from tests.support.cli import gateway
from tests.support.stack import Stack

CHANGE_SECONDS = 60


def change(repository: Path, *arguments: str) -> None:
    """Run `gateway release …` on the repository; do not wait for any gateway."""
    done = gateway("release", *arguments, "--no-wait", "--repository", str(repository))
    assert done.returncode == 0, done.stderr


def random_change(rng: random.Random, folder: Path) -> None:
    """Promote, split, roll back, unload and load, or touch the file, as the dice have it."""
    action = rng.choice(["promote", "traffic", "rollback", "unload", "touch"])
    if action == "promote":
        rollout.promote(folder, rng.choice("12"), "test")
    elif action == "traffic":
        rollout.traffic(folder, {"1": rng.randint(1, 99), "2": rng.randint(1, 99)}, "test")
    elif action == "rollback":
        with suppress(rollout.RolloutError):  # nothing may be left to roll back to
            rollout.rollback(folder, "test")
    elif action == "unload":
        for name in "12":
            with suppress(rollout.RolloutError):  # it may have traffic, or be loaded already
                rollout.unload(folder, name, "test")
                rollout.load(folder, name, "test")
    else:
        (folder / "releases.toml").touch()


def retired(stack: Stack) -> int:
    """Count the releases that the gateway has retired so far."""
    return stack.log.read_text().count("release retires")


async def until_retired(stack: Stack, count: int) -> None:
    """Wait until it has retired so many."""
    async with asyncio.timeout(CHANGE_SECONDS):
        while retired(stack) < count:
            await asyncio.sleep(0.05)


def write_again(folder: Path) -> None:
    """Write the files of both versions again, with the same bytes."""
    for file in folder.glob("[12]/model.*"):
        shutil.copyfile(file, folder / "again")
        (folder / "again").replace(file)


async def reload_in_triton(stack: Stack, folder: Path) -> None:
    """Have Triton load the model anew from its files, as an operator may behind our back."""
    write_again(folder)
    async with InferenceServerClient(stack.triton_endpoint) as triton:
        config = Configs(folder.parent).with_versions(folder.name, {1, 2})
        await triton.load_model(folder.name, config=config)


async def in_force(
    client: httpx.AsyncClient, weights: dict[str, int], model: str = "minilm"
) -> None:
    """Wait until the gateway routes by these weights."""
    async with asyncio.timeout(CHANGE_SECONDS):
        while (await client.get(f"/models/{model}")).json()["traffic"] != weights:
            await asyncio.sleep(0.05)
