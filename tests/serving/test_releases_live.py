"""Several releases at once: both answer, traffic splits by weight, changes lose no request."""

from __future__ import annotations

import asyncio
import math
import random
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from gateway.releases import rollout
from tests.support.goldens import TOLERANCE, cases
from tests.support.repository import copied
from tests.support.stack import GATEWAY, ROOT, Stack, serve

CHANGE_SECONDS = 60
TEXTS = ["A cat sits on the mat.", "Wie wird das Wetter?", "今天天气很好", "a " * 400]


@pytest.fixture(scope="module")
def rolling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A gateway on a repository of its own, with two releases of minilm."""
    folder = tmp_path_factory.mktemp("rolling")
    repository = copied(folder / "repository", ["minilm", "tumor"])
    stack = serve(folder / "run", repository=str(repository))
    yield stack
    stack.interrupt()


@pytest.fixture
def repository(rolling: Stack) -> Path:
    return rolling.run_dir.parent / "repository"


def change(repository: Path, *arguments: str) -> None:
    """Run `gateway release …` on the repository."""
    command = [GATEWAY, "release", *arguments, "--repository", str(repository)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


def random_change(rng: random.Random, folder: Path) -> None:
    """Promote, split, roll back, or touch the file, as the dice have it."""
    action = rng.choice(["promote", "traffic", "rollback", "touch"])
    if action == "promote":
        rollout.promote(folder, rng.choice("12"), "test")
    elif action == "traffic":
        rollout.traffic(folder, {"1": rng.randint(1, 99), "2": rng.randint(1, 99)}, "test")
    elif action == "rollback":
        with suppress(rollout.RolloutError):  # nothing may be left to roll back to
            rollout.rollback(folder, "test")
    else:
        (folder / "releases.toml").touch()


async def in_force(client: httpx.AsyncClient, weights: dict[str, int]) -> None:
    """Wait until the gateway routes by these weights."""
    async with asyncio.timeout(CHANGE_SECONDS):
        while (await client.get("/models/minilm")).json()["traffic"] != weights:
            await asyncio.sleep(0.05)


def test_both_releases_answer_with_their_own_libraries(rolling: Stack) -> None:
    with rolling.client() as client:
        releases = client.get("/models/minilm").json()["releases"]
        old, new = (releases[name]["libraries"] for name in ("1", "2"))
        assert old["minilm-preprocessor"].startswith("1.")
        assert new["minilm-preprocessor"].startswith("2.")
        assert old["tokenizers"].split(".")[:2] < new["tokenizers"].split(".")[:2]
        assert "transformers" in old
        assert "transformers" not in new
        for text in TEXTS:
            first, second = (
                client.post(
                    "/minilm_single_predict", json={"input": text}, headers={"X-Release": name}
                )
                for name in ("1", "2")
            )
            assert (first.headers["X-Release"], second.headers["X-Release"]) == ("1", "2")
            assert first.json()["preprocessor"] == "minilm-preprocessor==1.0.0"
            assert second.json()["preprocessor"] == "minilm-preprocessor==2.0.0"
            np.testing.assert_allclose(
                first.json()["output"]["embedding"],
                second.json()["output"]["embedding"],
                atol=TOLERANCE,
            )


async def test_the_split_follows_the_weights(rolling: Stack, repository: Path) -> None:
    requests, weight = 2000, 0.3
    change(repository, "traffic", "minilm", "1=30", "2=70")
    async with httpx.AsyncClient(base_url=rolling.url, timeout=60) as client:
        await in_force(client, {"1": 30, "2": 70})
        seen: Counter[str] = Counter()
        todo = iter(range(requests))

        async def user() -> None:
            for _ in todo:
                answer = await client.post("/minilm_single_predict", json={"input": "hi"})
                seen[answer.json()["release"]] += 1

        await asyncio.gather(*(user() for _ in range(16)))
    # 3.89 standard deviations hold all but one in 10,000 of a binomial distribution's draws.
    spread = 3.89 * math.sqrt(requests * weight * (1 - weight))
    assert abs(seen["1"] - requests * weight) <= spread, seen


def test_an_affinity_key_sticks(rolling: Stack) -> None:
    with rolling.client() as client:
        chosen = {
            key: {
                client.post(
                    "/minilm_single_predict",
                    json={"input": "hi"},
                    headers={"X-Affinity-Key": key},
                ).headers["X-Release"]
                for _ in range(4)
            }
            for key in map(str, range(24))
        }
    assert all(len(releases) == 1 for releases in chosen.values())
    assert len(set.union(*chosen.values())) == 2


async def test_random_changes_under_load_lose_nothing(rolling: Stack, repository: Path) -> None:
    rng = random.Random(11)
    stop = asyncio.Event()
    wrong: list[Any] = []
    seen: Counter[str] = Counter()

    async def user(client: httpx.AsyncClient) -> None:
        while not stop.is_set():
            answer = await client.post("/minilm_single_predict", json={"input": "steady"})
            body = answer.json()
            if answer.status_code != 200:
                wrong.append(body)
                continue
            seen[body["release"]] += 1
            if body["preprocessor"] != f"minilm-preprocessor=={body['release']}.0.0":
                wrong.append(body)

    async with httpx.AsyncClient(base_url=rolling.url, timeout=60) as client:
        users = [asyncio.create_task(user(client)) for _ in range(4)]
        for _ in range(200):
            await asyncio.to_thread(random_change, rng, repository / "minilm")
            await asyncio.sleep(rng.random() / 5)
        change(repository, "promote", "minilm", "2")
        await in_force(client, {"2": 100})
        stop.set()
        await asyncio.gather(*users)
    assert not wrong
    assert len(seen) == 2
    assert sum(seen.values()) > 100


async def test_a_shadow_answers_nobody_and_is_compared(rolling: Stack, repository: Path) -> None:
    change(repository, "promote", "minilm", "2")
    change(repository, "shadow", "minilm", "1")
    async with httpx.AsyncClient(base_url=rolling.url, timeout=60) as client:
        await in_force(client, {"2": 100})
        async with asyncio.timeout(CHANGE_SECONDS):
            report: dict[str, Any] = {}
            while report.get("requests", 0) < 10:
                answer = await client.post("/minilm_single_predict", json={"input": "shadowed"})
                assert answer.headers["X-Release"] == "2"
                report = (await client.get("/models/minilm/shadow")).json()["shadow"] or {}
        assert report["release"] == "1"
        assert report["failed"] == 0
        assert report["embeddings"] == report["instances"] > 0
        assert report["cosine_min"] > 0.9999
        assert report["max_abs_difference"] < TOLERANCE
        change(repository, "shadow", "minilm", "none")


async def test_killed_workers_lose_no_request(rolling: Stack) -> None:
    rng = random.Random(5)
    case = cases("tumor")[0]
    stop = asyncio.Event()
    answers: list[httpx.Response] = []

    async def user(client: httpx.AsyncClient) -> None:
        while not stop.is_set():
            answers.append(await client.post("/tumor_single_predict", json=case.single))

    async with httpx.AsyncClient(base_url=rolling.url, timeout=60) as client:
        users = [asyncio.create_task(user(client)) for _ in range(8)]
        killed = 0
        for _ in range(12):
            workers = [p for p in rolling.processes if "gateway_preprocessor.worker" in p.cmdline()]
            workers = [p for p in workers if "tumor-preprocessor" in p.cmdline()]
            if workers:
                rng.choice(workers).kill()
                killed += 1
            await asyncio.sleep(0.4)
        stop.set()
        await asyncio.gather(*users)
    assert killed > 6
    assert {answer.status_code for answer in answers} == {200}
    assert all(case.wrong(answer.json()["output"]) is None for answer in answers)
