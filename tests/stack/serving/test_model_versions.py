"""Two versions of one model behind one preprocessor: each is held to the results of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from gateway.releases import lock, manifest
from gateway.releases.lock import Lock
from tests.support.goldens import cases
from tests.support.repository import copied
from tests.support.stack import ROOT, Stack, serve

MODEL = "langid"
FILE = "2/goldens.json"
PATIENCE_SECONDS = 90
BOTH = (ROOT / "model_repository" / MODEL / manifest.FILE).read_text()
FIRST = BOTH.partition("[releases.2]")[0] + "[traffic]\n1 = 100\n"
CASE = cases(MODEL)[0]

#: What is done to the results of release 2 before they are locked, and why it is rejected then.
REJECTED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a result off by more than the tolerance": (
        lambda path: edit(path, lambda found: label(found[0]).update(score=0.99)),
        "golden case 'German, defaults': $.labels[0].score: 0.99",
    ),
    "another label": (
        lambda path: edit(path, lambda found: label(found[0]).update(label="nl")),
        "golden case 'German, defaults': $.labels[0].label: 'de' instead of 'nl'",
    ),
    "a case is missing": (
        lambda path: edit(path, lambda found: found.pop(7)),
        f"{MODEL}/{FILE}: golden case 'one word' is missing",
    ),
    "a case that the preprocessor does not have": (
        lambda path: edit(path, lambda found: found[7].update(name="two words")),
        f"{MODEL}/{FILE}: the preprocessor has no golden case 'two words'",
    ),
    "a case without a result": (
        lambda path: edit(path, lambda found: found[7].pop("output")),
        f"{MODEL}/{FILE}: Object missing required field `output` - at `$[7]`",
    ),
    "half a file": (
        lambda path: path.write_text(path.read_text()[:100]),
        f"{MODEL}/{FILE}: Input data was truncated",
    ),
    "no file, so that the wheel's results hold": (
        lambda path: path.unlink(),
        "golden case 'German, defaults': $.labels[0].score: 0.99",
    ),
}


def edit(path: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


def label(result: dict[str, Any]) -> dict[str, Any]:
    """The most probable one."""
    best: dict[str, Any] = result["output"]["labels"][0]
    return best


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(tmp_path_factory.mktemp("versions") / "repository", [MODEL]) / MODEL


@pytest.fixture(scope="module")
def serving(folder: Path) -> Iterator[Stack]:
    """A gateway that serves release 1 alone."""
    publish(folder, FIRST)
    stack = serve(
        folder.parents[1] / "run", repository=str(folder.parent), workers="1", watch_seconds="0.1"
    )
    yield stack
    stack.interrupt()


def publish(folder: Path, declared: str) -> None:
    partial = folder / ".releases.toml.new"
    partial.write_text(declared)
    partial.replace(folder / manifest.FILE)


def lock_as_it_is(folder: Path) -> None:
    """Lock release 2 by hand, with whatever lies in its version's folder."""
    found = lock.read(folder)
    assert found
    second = msgspec.structs.replace(found.releases["2"], model=lock.digest_model(folder, 2))
    lock.write(folder, Lock(found.releases | {"2": second}))


@asynccontextmanager
async def second_release(folder: Path, stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """Declare release 2 with all the traffic while requests keep coming; 1 must answer them."""
    stop = asyncio.Event()
    answers: list[httpx.Response] = []
    async with httpx.AsyncClient(base_url=stack.url, timeout=60) as client:

        async def user() -> None:
            while not stop.is_set():
                answers.append(await client.post(f"/{MODEL}_single_predict", json=CASE.single))
                await asyncio.sleep(0.05)

        asking = asyncio.create_task(user())
        try:
            publish(folder, BOTH.replace("1 = 50\n2 = 50", "2 = 100"))
            yield client
        finally:
            stop.set()
            await asking
            publish(folder, FIRST)
            await told(client, lambda releases: releases.keys() == {"1"})
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["model_version"] for answer in answers} == {1}
    assert all(CASE.wrong(answer.json()["output"]) is None for answer in answers)


async def told(client: httpx.AsyncClient, holds: Callable[[dict[str, Any]], bool]) -> None:
    """Wait until what is shown of the releases is as wanted."""
    releases: dict[str, Any] = {}
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not releases or not holds(releases):
                releases = (await client.get(f"/models/{MODEL}")).json()["releases"]
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"shown are {releases}")


async def rejected_for(client: httpx.AsyncClient, reason: str) -> None:
    await told(
        client,
        lambda releases: (
            releases.get("2", {}).get("state") == "rejected" and reason in releases["2"]["reason"]
        ),
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        # Triton loads all versions of a model anew when one comes: 1 may be being proven again.
        while (ready := await client.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.05)
    assert reason in ready.json()["problems"][f"{MODEL}/2"]


@pytest.fixture
def results(folder: Path) -> Iterator[Path]:
    """The file of release 2's results, and its lock, which are put back afterwards."""
    path, locked = folder / FILE, folder / lock.FILE
    before = path.read_bytes(), locked.read_bytes()
    yield path
    path.write_bytes(before[0])
    locked.write_bytes(before[1])


@pytest.mark.parametrize(("spoil", "reason"), REJECTED.values(), ids=REJECTED)
async def test_results_that_do_not_fit_are_rejected(
    folder: Path,
    serving: Stack,
    results: Path,
    spoil: Callable[[Path], object],
    reason: str,
) -> None:
    spoil(results)
    lock_as_it_is(folder)
    async with second_release(folder, serving) as client:
        await rejected_for(client, reason)


async def test_any_change_after_the_lock_is_drift(
    folder: Path, serving: Stack, results: Path
) -> None:
    edit(results, lambda found: None)  # the same results in another form
    async with second_release(folder, serving) as client:
        await rejected_for(client, f"model file {FILE} changed")


async def test_both_versions_answer_each_with_its_own_results(folder: Path, serving: Stack) -> None:
    async with httpx.AsyncClient(base_url=serving.url, timeout=60) as client:
        publish(folder, BOTH)
        await told(client, lambda releases: releases.get("2", {}).get("state") == "ready")
        releases = (await client.get(f"/models/{MODEL}")).json()["releases"]
        assert {releases[name]["preprocessor"] for name in "12"} == {"langid-preprocessor==1.0.0"}
        apart = 0  # cases in which version 2 answers differently
        for case in cases(MODEL):
            outputs = []
            for version in (1, 2):
                answer = await client.post(
                    f"/{MODEL}_single_predict",
                    json=case.single,
                    headers={"X-Release": str(version)},
                )
                body = answer.json()
                outputs.append(body["output"])
                assert answer.headers["X-Release"] == body["release"] == str(version)
                assert body["model_version"] == version
                assert case.wrong(body["output"], version) is None
            apart += case.wrong(outputs[1], version=1) is not None
        assert apart > len(cases(MODEL)) / 2
