"""Several releases at once: both answer, traffic splits by weight, changes lose no request."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from tests.stack.serving.rolling import (
    CHANGE_SECONDS,
    change,
    in_force,
    random_change,
    reload_in_triton,
    retired,
    until_retired,
)
from tests.support.goldens import TOLERANCE, cases
from tests.support.load import load
from tests.support.raw import post_all
from tests.support.repository import copied, second_release
from tests.support.stack import Stack, serve

CASE = cases("tumor")[0]
#: Of a batch that outlasts a change of its release and a reload of its model.
ROWS = 400
TEXTS = ["A cat sits on the mat.", "Wie wird das Wetter?", "今天天气很好", "a " * 400]


@pytest.fixture(scope="module")
def rolling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A gateway on a repository of its own, with two releases of each model."""
    folder = tmp_path_factory.mktemp("rolling")
    repository = copied(folder / "repository", ["langid", "minilm", "tumor"])
    second_release(repository / "tumor")
    patient = {"request_timeout_ms": "120000"}  # a batch must outlast a change and a reload
    stack = serve(folder / "run", repository=str(repository), **patient)
    yield stack
    stack.interrupt()


@pytest.fixture
def repository(rolling: Stack) -> Path:
    return rolling.run_dir.parent / "repository"


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
    requests, weight = 3_000, 0.3
    change(repository, "traffic", "langid", "1=30", "2=70")
    async with httpx.AsyncClient(base_url=rolling.url, timeout=60) as client:
        await in_force(client, {"1": 30, "2": 70}, "langid")
    # 2.576 standard deviations hold 99 % of a binomial distribution's draws.
    spread = 2.576 * math.sqrt(requests * weight * (1 - weight))
    for _ in range(2):  # one draw in a hundred is outside by nature, two in a row are not
        request = "/langid_single_predict", b'{"input": "hi"}'
        bodies = await post_all(rolling.url, [request] * requests, users=32)
        seen = Counter(msgspec.json.decode(body)["release"] for body in bodies)
        assert seen.total() == requests
        if abs(seen["1"] - requests * weight) <= spread:
            return
    pytest.fail(f"{seen} is not within {spread:.0f} of {requests * weight:.0f}")


async def test_a_release_is_unloaded_and_loaded_again(rolling: Stack, repository: Path) -> None:
    async with httpx.AsyncClient(base_url=rolling.url, timeout=60) as client:

        async def pinned() -> int:
            answer = await client.post(
                "/tumor_single_predict", json=CASE.single, headers={"X-Release": "2"}
            )
            return answer.status_code

        async def until(status: int) -> None:
            async with asyncio.timeout(CHANGE_SECONDS):
                while await pinned() != status:
                    await asyncio.sleep(0.05)

        await until(200)
        unloaded = await client.post("/admin/models/tumor/unload", json={"release": "2"})
        assert unloaded.json()["unloaded"] == ["2"]
        await until(404)
        shown = (await client.get("/models/tumor")).json()
        assert shown["unloaded"] == ["2"]
        assert shown["releases"].keys() == {"1"}
        assert (await client.get("/readyz")).status_code == 200
        refused = await client.post("/admin/models/tumor/promote", json={"release": "2"})
        assert refused.status_code == 409
        assert "load it first" in refused.json()["detail"]
        await client.post("/admin/models/tumor/load", json={"release": "2"})
        await until(200)


async def test_an_affinity_key_sticks(rolling: Stack, repository: Path) -> None:
    change(repository, "traffic", "langid", "1=50", "2=50")
    async with httpx.AsyncClient(base_url=rolling.url, timeout=60) as client:
        await in_force(client, {"1": 50, "2": 50}, "langid")
        chosen = {
            key: {
                (
                    await client.post(
                        "/langid_single_predict",
                        json={"input": "hi"},
                        headers={"X-Affinity-Key": key},
                    )
                ).headers["X-Release"]
                for _ in range(4)
            }
            for key in map(str, range(24))
        }
    assert all(len(releases) == 1 for releases in chosen.values())
    assert len(set.union(*chosen.values())) == 2


def score(answer: httpx.Response) -> float:
    """The probability of langid's best language."""
    return float(answer.json()["output"]["labels"][0]["score"])


async def test_random_changes_under_load_lose_nothing(rolling: Stack, repository: Path) -> None:
    """The two versions of langid answer differently: each answer shows which one gave it."""
    rng = random.Random(11)
    stop = asyncio.Event()
    wrong: list[Any] = []
    seen: Counter[str] = Counter()
    url, text = "/langid_single_predict", {"input": "Velkommen til en ny dag"}

    async with httpx.AsyncClient(base_url=rolling.url, timeout=60) as client:
        right = {
            name: score(await client.post(url, json=text, headers={"X-Release": name}))
            for name in "12"
        }
        assert abs(right["1"] - right["2"]) > 100 * TOLERANCE

        async def user() -> None:
            while not stop.is_set():
                answer = await client.post(url, json=text)
                body = answer.json()
                if answer.status_code != 200:
                    wrong.append(body)
                    continue
                name = body["release"]
                seen[name] += 1
                off = abs(score(answer) - right[name])
                if off > TOLERANCE or body["model_version"] != int(name):
                    wrong.append(body)

        users = [asyncio.create_task(user()) for _ in range(4)]
        for turn in range(200):
            if turn % 40 == 20:
                await reload_in_triton(rolling, repository / "langid")
            await asyncio.to_thread(random_change, rng, repository / "langid")
            await asyncio.sleep(rng.random() / 10)
        change(repository, "promote", "langid", "2")
        await in_force(client, {"2": 100}, "langid")
        stop.set()
        await asyncio.gather(*users)
    assert not wrong
    assert len(seen) == 2
    assert sum(seen.values()) > 100


async def test_a_release_that_retires_is_proven_again_after_a_reload(
    rolling: Stack, repository: Path
) -> None:
    """A batch is under way when its release is declared otherwise and its model is loaded anew."""
    file = repository / "minilm/releases.toml"
    declared = file.read_text()
    requirement = 'preprocessor = "minilm-preprocessor==2.0.0"\n'
    body, pin = {"inputs": ["many words " * 200] * ROWS}, {"X-Release": "2"}
    before = retired(rolling)
    async with httpx.AsyncClient(base_url=rolling.url, timeout=120) as client:
        batch = asyncio.create_task(client.post("/minilm_batch_predict", json=body, headers=pin))
        await asyncio.sleep(0.5)
        other = requirement + "batching = { max_rows = 8 }\n"
        file.write_text(declared.replace(requirement, other, 1))
        try:
            await until_retired(rolling, before + 1)
            assert not batch.done()
            await reload_in_triton(rolling, repository / "minilm")
            answer = await batch
        finally:
            file.write_text(declared)
        await until_retired(rolling, before + 2)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["outputs"]) == ROWS


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
    killed = 0
    async with load(rolling, users=8):
        for _ in range(12):
            if workers := rolling.workers("tumor-preprocessor"):
                rng.choice(workers).kill()
                killed += 1
            await asyncio.sleep(0.4)
    assert killed > 6
