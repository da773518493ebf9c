"""Misaligned releases: each is rejected before its first request, and the old one goes on serving.

Every case declares a release 2 of `tumor`, and an operator promotes it while requests keep coming.
The gate must reject it for the right reason. The command, `release list`, `/models/tumor`,
`/readyz`, the log and the terminal all tell that very reason, and the metric counts it; no request
may fail or be answered by it.
That Triton answers from another version than it was asked for cannot be brought about with a real
Triton, and is not faked here. What can be: it holds other weights than those that are locked, under
the same number; see the last tests. `test_tokens.py` has the cases of a real tokenizer.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tritonclient.grpc.aio import InferenceServerClient

from gateway.releases.lock import LockedRelease
from gateway.triton.configs import Configs
from tests.slow.serving.misaligned import CASES, Case, turn_around
from tests.support.cli import gateway
from tests.support.goldens import cases
from tests.support.repository import copied
from tests.support.stack import GATEWAY, Stack, serve
from tests.support.variants import MODEL, Workshop

START_SECONDS, CALL_SECONDS = 12, 2
REJECTION_SECONDS = 90


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("misaligned"))


@pytest.fixture(scope="module")
def serving(workshop: Workshop) -> Iterator[Stack]:
    """A gateway on the workshop's repository, whose workers may neither start nor reply slowly."""
    stack = serve(
        workshop.root / "run",
        repository=str(workshop.repository),
        wheelhouse=str(workshop.settings.wheelhouse),
        environments=str(workshop.settings.environments),
        workers="1",
        worker_start_seconds=str(START_SECONDS),
        worker_call_seconds=str(CALL_SECONDS),
        watch_seconds="0.1",
    )
    yield stack
    stack.interrupt()


@asynccontextmanager
async def load(
    client: httpx.AsyncClient, body: dict[str, Any]
) -> AsyncIterator[list[httpx.Response]]:
    """Send requests all the while; gives the answers so far."""
    stop = asyncio.Event()
    answers: list[httpx.Response] = []

    async def user() -> None:
        while not stop.is_set():
            answers.append(await client.post(f"/{MODEL}_single_predict", json=body))
            await asyncio.sleep(0.02)

    users = [asyncio.create_task(user()) for _ in range(2)]
    try:
        yield answers
    finally:
        stop.set()
        await asyncio.gather(*users)


async def releases(client: httpx.AsyncClient) -> dict[str, Any]:
    shown: dict[str, Any] = (await client.get(f"/models/{MODEL}")).json()["releases"]
    return shown


async def rejections(client: httpx.AsyncClient) -> float:
    text = (await client.get("/metrics")).text
    labels = f'{{model="{MODEL}",release="2"}}'
    found = re.search(
        rf"^gateway_release_rejections_total{re.escape(labels)} (\S+)$", text, re.MULTILINE
    )
    return float(found[1]) if found else 0.0


async def rejected_for(client: httpx.AsyncClient, reason: str) -> None:
    """Wait until release 2 is shown as rejected for this reason; it must never be ready."""
    shown: dict[str, Any] = {}
    try:
        async with asyncio.timeout(REJECTION_SECONDS):
            while shown.get("state") != "rejected" or reason not in shown["reason"]:
                shown = (await releases(client)).get("2", {})
                assert shown.get("state") != "ready"
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"release 2 is not rejected for {reason!r}: {shown}")


async def restored(workshop: Workshop, client: httpx.AsyncClient) -> None:
    """Take release 2 away, and wait until only release 1 is left."""
    workshop.restore()
    async with asyncio.timeout(REJECTION_SECONDS):
        while (await releases(client)).keys() != {"1"}:
            await asyncio.sleep(0.05)
    workshop.clear_versions()


async def operate(
    workshop: Workshop, serving: Stack, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run `gateway release …` as an operator would."""
    place = ("--url", serving.url, "--repository", str(workshop.repository))
    return await asyncio.to_thread(gateway, "release", *arguments, *place)


def logged(path: Path, start: int) -> list[str]:
    """The reasons of the rejections of release 2 that were logged since `start`."""
    entries = map(json.loads, path.read_text()[start:].splitlines())
    return [
        entry["reason"]
        for entry in entries
        if entry["event"] == "release rejected"
        and (entry["model"], entry["release"]) == (MODEL, "2")
    ]


def prepare(workshop: Workshop, case: Case, version: str) -> LockedRelease | None:
    """Build, lock and spoil what release 2 is made of."""
    workshop.variant(version, case.edits, case.goldens, case.most_goldens)
    if case.lock == "nobody":
        return None
    if case.model_version > 1:
        workshop.add_version(case.model_version)
    if case.lock == "hand":
        locked = workshop.locked_by_hand()
    else:
        locked = workshop.locked(version, case.model_version)
    case.spoil(workshop, locked)
    return locked


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_misaligned_release_is_rejected(
    workshop: Workshop, serving: Stack, case: Case
) -> None:
    request, version = cases(MODEL)[0], f"1.0.{CASES.index(case) + 1}"
    locked = await asyncio.to_thread(prepare, workshop, case, version)
    start = len(serving.log.read_text())
    printed = len(serving.output.read_text())
    async with httpx.AsyncClient(base_url=serving.url, timeout=30) as client:
        before = await rejections(client)
        async with load(client, request.single) as answers:
            workshop.declare(version, case.model_version, locked, promoted=False)
            try:
                refused = await operate(workshop, serving, "promote", MODEL, "2")
                await rejected_for(client, case.reason)
                reason = (await releases(client))["2"]["reason"]
                assert refused.returncode == 3, refused.stderr
                assert refused.stdout.endswith("1=0, 2=100; shadow none: declared\n")
                assert refused.stderr.startswith("Error: not in force: in force in 0 of 1 gateways")
                assert "1=100 is in force at " in refused.stderr
                assert f"release 2 is rejected: {reason}\n" in refused.stderr
                shown = await operate(workshop, serving, "list", MODEL)
                (row,) = (x for x in shown.stdout.splitlines() if re.match(f"{MODEL} +2 ", x))
                assert re.search(rf" 100% .* 0% +rejected: {re.escape(reason)}$", row)
                ready = await client.get("/readyz")
                assert ready.status_code == 200
                assert ready.json()["problems"][f"{MODEL}/2"] == f"rejected: {reason}"
                assert await rejections(client) > before
                assert set(logged(serving.log, start)) == {reason}
                told = serving.output.read_text()[printed:]
                # Again, if its workers' death made it unavailable in between.
                assert told.count(f"rejected: {MODEL}, release 2: {reason}\n") in {1, 2}
                assert "1=100 stays in force although 2=100 is declared; release 2 is " in told
                pinned = await client.post(
                    f"/{MODEL}_single_predict", json=request.single, headers={"X-Release": "2"}
                )
                assert pinned.status_code == 503
            finally:
                await restored(workshop, client)
    assert len(answers) > 5
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["release"] for answer in answers} == {"1"}
    assert all(request.wrong(answer.json()["output"]) is None for answer in answers)


async def test_the_reason_shown_is_that_of_the_newest_definition(
    workshop: Workshop, serving: Stack
) -> None:
    async with httpx.AsyncClient(base_url=serving.url, timeout=30) as client:
        try:
            workshop.declare("1.0.0", 2, None)
            await rejected_for(client, "it is not locked")
            missing = msgspec.structs.replace(workshop.first, model_version=2)
            workshop.declare("1.0.0", 3, missing)
            await rejected_for(client, "model_version is 3, locked is 2")
        finally:
            await restored(workshop, client)


async def test_weights_put_right_in_place_are_loaded_anew(
    workshop: Workshop, serving: Stack
) -> None:
    """Wrong weights were locked and loaded; the right ones come under the same number."""
    workshop.add_version(2)
    weights = workshop.folder / "2/model.onnx"
    right = weights.read_bytes()
    turn_around(weights)
    async with httpx.AsyncClient(base_url=serving.url, timeout=30) as client:
        async with load(client, cases(MODEL)[0].single) as answers:
            try:
                workshop.declare("1.0.0", 2, workshop.locked_weights(2))
                await rejected_for(client, "$.label: 'benign' instead of 'malignant'")
                weights.write_bytes(right)
                workshop.declare("1.0.0", 2, workshop.locked_weights(2))
                async with asyncio.timeout(REJECTION_SECONDS):
                    while (await releases(client))["2"]["state"] != "ready":
                        await asyncio.sleep(0.05)
                await asyncio.sleep(0.5)
            finally:
                await restored(workshop, client)
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["release"] for answer in answers} == {"1", "2"}
    case = cases(MODEL)[0]
    assert all(case.wrong(answer.json()["output"]) is None for answer in answers)


async def test_after_a_restart_the_traffic_goes_on_that_was_in_force(
    workshop: Workshop, tmp_path: Path
) -> None:
    """What is declared cannot be served: neither before the restart nor after it."""
    request = cases(MODEL)[0]
    settings = {"repository": str(workshop.repository), "run_dir": str(tmp_path / "run")}
    for restart in (False, True):
        stack = serve(tmp_path / f"log-{restart}", **settings)
        try:
            async with httpx.AsyncClient(base_url=stack.url, timeout=30) as client:
                workshop.declare("1.0.0", 2, None)
                await rejected_for(client, "it is not locked")
                shown = (await client.get(f"/models/{MODEL}")).json()
                assert shown["traffic"] == {"1": 100}
                assert shown["declared_traffic"] == {"2": 100}
                answer = await client.post(f"/{MODEL}_single_predict", json=request.single)
                assert request.wrong(answer.json()["output"]) is None
                assert answer.headers["X-Release"] == "1"
        finally:
            stack.interrupt()
    workshop.restore()


async def test_a_triton_that_serves_other_weights_than_those_locked(
    workshop: Workshop, tmp_path: Path
) -> None:
    """A Triton that reads a repository of its own: only the golden results can tell."""
    elsewhere = copied(tmp_path / "elsewhere", [MODEL])
    turn_around(elsewhere / MODEL / "1/model.onnx")
    stacks = [Stack([GATEWAY, "serve"], tmp_path / "holder", repository=str(elsewhere), port="0")]
    try:
        await until_logged(stacks[0], "triton answers")
        assert await load_in(stacks[0].triton_endpoint, elsewhere)
        settings = {"repository": str(workshop.repository), "watch_seconds": "0.1"}
        settings["triton"] = stacks[0].triton_endpoint
        stacks.append(Stack([GATEWAY, "serve"], tmp_path / "front", **settings))
        rejection = await until_logged(stacks[1], "release rejected")
        assert "$.label: 'benign' instead of 'malignant'" in rejection["reason"]
    finally:
        for stack in stacks:
            stack.interrupt()


async def until_logged(stack: Stack, event: str) -> dict[str, Any]:
    """Wait until the gateway has logged this event; give the entry."""
    async with asyncio.timeout(REJECTION_SECONDS):
        while True:
            text = stack.log.read_text() if stack.log.exists() else ""
            for line in text.splitlines(keepends=True):
                if line.endswith("\n") and (entry := json.loads(line))["event"] == event:
                    return dict(entry)
            await asyncio.sleep(0.1)


async def load_in(endpoint: str, repository: Path) -> bool:
    """Have a Triton load the model; say whether it serves it."""
    async with InferenceServerClient(endpoint) as triton:
        config = Configs(repository).with_versions(MODEL, {1})
        await triton.load_model(MODEL, config=config)
        return bool(await triton.is_model_ready(MODEL, "1"))
