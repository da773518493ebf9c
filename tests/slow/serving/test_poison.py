"""Requests that end their workers: refused by name, and nobody else pays for them."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.slow.serving.misaligned import MODELS_PYTHON
from tests.support.goldens import cases
from tests.support.load import load
from tests.support.stack import ROOT, Stack, serve
from tests.support.variants import MODEL, Workshop

CASE = cases(MODEL)[0]
VERSION, PACKAGE, WORKERS, CALL_SECONDS = "1.1.0", "tumor-preprocessor", 2, 3
FIRST = "mean radius"
CRASH, HANG, DIVIDE = 666.0, 667.0, 0.0
OBEY = f"""
def _obey(instances):
    import os, time

    for record in instances:
        order = msgspec.structs.astuple(record)[0]
        if order == {CRASH}:
            os._exit(3)
        while order == {HANG}:
            time.sleep(1)


_MEASURES = ("""
EDITS = {"_MEASURES = (": OBEY, "rows = np.array(": "_obey(instances)\n        rows = np.array("}
#: Adds x / x - 1 of the first measurement to the probabilities: nothing, or NaN.
SPOIL = """
import sys, onnx
from onnx import helper, TensorProto
model = onnx.load(sys.argv[1])
(features, *_), (output, *_) = model.graph.input, model.graph.output
for node in model.graph.node:
    node.output[:] = ["good" if name == output.name else name for name in node.output]
model.graph.initializer.extend([
    helper.make_tensor("first", TensorProto.INT64, [1], [0]),
    helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0]),
])
model.graph.node.extend([
    helper.make_node("Gather", [features.name, "first"], ["x"], axis=1),
    helper.make_node("Div", ["x", "x"], ["quotient"]),
    helper.make_node("Sub", ["quotient", "one"], ["nothing"]),
    helper.make_node("Add", ["good", "nothing"], [output.name]),
])
onnx.save(model, sys.argv[1])
"""
TIMEOUT = {"X-Request-Timeout-Ms": "1000"}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """`tumor`: its preprocessor crashes or hangs when told to, its model may divide by zero."""
    workshop = Workshop(tmp_path_factory.mktemp("poison"))
    workshop.variant(VERSION, EDITS, {}, None)
    workshop.add_version(2)
    for folder in (workshop.folder, workshop.root / "staging" / MODEL):
        command = [MODELS_PYTHON, "-c", SPOIL, str(folder / "2/model.onnx")]
        subprocess.run(command, cwd=ROOT, check=True)
    workshop.declare(VERSION, 2, workshop.locked(VERSION, 2))
    return workshop


@pytest.fixture(scope="module")
def serving(workshop: Workshop) -> Iterator[Stack]:
    stack = serve(
        workshop.root / "run",
        repository=str(workshop.repository),
        wheelhouse=str(workshop.settings.wheelhouse),
        environments=str(workshop.settings.environments),
        workers=str(WORKERS),
        worker_call_seconds=str(CALL_SECONDS),
    )
    yield stack
    stack.interrupt()


def instance(first: float) -> dict[str, Any]:
    return CASE.golden.input | {FIRST: first}


async def single(client: httpx.AsyncClient, first: float, **options: Any) -> httpx.Response:
    return await client.post(f"/{MODEL}_single_predict", json={"input": instance(first)}, **options)


def refused(answer: httpx.Response, index: int) -> bool:
    body = answer.json()
    assert answer.status_code == 422, body
    assert body["code"] == "poisonous_input"
    (error,) = body["errors"]
    return bool(error["index"] == index and "cost two worker processes" in error["reason"])


async def test_two_that_hang_are_refused_and_their_neighbours_answered(serving: Stack) -> None:
    async with load(serving, users=8) as answers:  # fails unless each is answered with 200
        async with httpx.AsyncClient(base_url=serving.url, timeout=60) as client:
            guilty = [asyncio.create_task(single(client, HANG)) for _ in range(2)]
            found = [await each for each in asyncio.as_completed(guilty)]
            assert all(refused(answer, 0) for answer in found)
            assert (await single(client, CASE.golden.input[FIRST])).status_code == 200
    assert len(answers) > 400


async def test_those_that_crash(serving: Stack) -> None:
    async with load(serving, users=8):
        async with httpx.AsyncClient(base_url=serving.url, timeout=60) as client:
            for _ in range(3):
                assert refused(await single(client, CRASH), 0)
            batch = {"inputs": [CASE.golden.input, CASE.golden.input, instance(CRASH)]}
            assert refused(await client.post(f"/{MODEL}_batch_predict", json=batch), 2)


async def test_nothing_is_done_for_one_that_has_gone(serving: Stack) -> None:
    """Its worker is killed once nobody waits, and it is not asked again."""

    def losses() -> int:
        return serving.log.read_text().count('"worker hangs: killed"')

    async with httpx.AsyncClient(base_url=serving.url, timeout=60) as client:
        before, poisonous = losses(), serving.log.read_text().count("an instance is poisonous")
        late = await single(client, HANG, headers=TIMEOUT)
        assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
        async with asyncio.timeout(30):
            while losses() == before:
                await asyncio.sleep(0.1)
        await asyncio.sleep(2 * CALL_SECONDS)
        assert losses() == before + 1
        assert serving.log.read_text().count("an instance is poisonous") == poisonous
        assert (await single(client, CASE.golden.input[FIRST])).status_code == 200


async def test_what_is_no_number_is_no_answer(serving: Stack) -> None:
    """Rows that share a call with it are answered as ever."""
    async with load(serving, users=8):
        async with httpx.AsyncClient(base_url=serving.url, timeout=60) as client:
            for _ in range(20):
                batch = {"inputs": [CASE.golden.input, instance(DIVIDE), CASE.golden.input]}
                alone, among = await asyncio.gather(
                    single(client, DIVIDE), client.post(f"/{MODEL}_batch_predict", json=batch)
                )
                for answer, index in ((alone, 0), (among, 1)):
                    assert (answer.status_code, answer.json()["code"]) == (502, "inference_failed")
                    (error,) = answer.json()["errors"]
                    assert error["index"] == index
                    assert "output 'probabilities' is not finite" in error["reason"]


def test_all_is_well_afterwards(serving: Stack) -> None:
    with serving.client() as client:
        deadline = time.monotonic() + 60
        while (told := client.get("/readyz").json())["status"] != "ready":
            assert time.monotonic() < deadline, told
            time.sleep(0.1)
    assert len(serving.workers(PACKAGE)) == 2 * WORKERS  # those of both releases
