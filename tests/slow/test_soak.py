"""20,000 mixed requests at concurrency 32: no error, every body right, memory flat."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import httpx
import msgspec

from tests.support.goldens import Case, cases
from tests.support.raw import post_all
from tests.support.stack import Stack

REQUESTS, PARTS = 20_000, 8
CONCURRENCY = 32
#: Models, and how often each is asked: the slow one less, or it alone would take the time.
MODELS = {"minilm": 1, "langid": 2, "digits": 2, "tumor": 2}
#: Characters of the texts that are left out.
LONG_TEXT = 1000
#: Every eighth request is a batch of two to six.
BATCH_SHARE = 8
#: Bytes by which the second half may grow: allocator noise over some ten processes.
FLAT = 24 << 20


def draw(rng: random.Random, pools: dict[str, list[Case]]) -> list[Case]:
    """Draw the cases of one request: one for a single, several for a batch."""
    (model,) = rng.choices(list(MODELS), list(MODELS.values()))
    pool = pools[model]
    if rng.randrange(BATCH_SHARE):
        return [rng.choice(pool)]
    plain = [case for case in pool if not case.golden.parameters]
    return rng.choices(plain, k=rng.randint(2, 6))


def request(drawn: list[Case]) -> tuple[str, bytes]:
    """Return the path and the body that ask for these cases."""
    model, batch = drawn[0].model, len(drawn) > 1
    body = {"inputs": [case.golden.input for case in drawn]} if batch else drawn[0].single
    return f"/{model}_{'batch' if batch else 'single'}_predict", msgspec.json.encode(body)


def check(drawn: list[Case], answer: bytes) -> None:
    """Check every result of an answer, and its stamps."""
    body = msgspec.json.decode(answer)
    outputs = body["outputs"] if len(drawn) > 1 else [body["output"]]
    version = body["model_version"]
    assert [case.wrong(output, version) for case, output in zip(drawn, outputs, strict=True)] == [
        None for _ in drawn
    ]
    assert body["model"] == drawn[0].model


async def widen(client: httpx.AsyncClient) -> None:
    """Send the widest batches there are: ONNX Runtime keeps memory for the widest it has seen."""
    body = {"inputs": ["as many tokens as the model takes " * 60] * 128}
    await asyncio.gather(*(client.post("/minilm_batch_predict", json=body) for _ in range(3)))


async def test_20_000_mixed_requests(stack: Stack) -> None:
    rng = random.Random(7)
    pools = {model: cases(model) for model in MODELS}
    # A text of 256 tokens costs as much as ten others, and would only make the run longer.
    pools["minilm"] = [c for c in pools["minilm"] if len(c.golden.input) < LONG_TEXT]
    todo = [draw(rng, pools) for _ in range(REQUESTS)]
    memory: list[int] = []
    async with httpx.AsyncClient(base_url=stack.url, timeout=60) as client:
        await widen(client)
    for start in range(0, REQUESTS, REQUESTS // PARTS):
        part = todo[start : start + REQUESTS // PARTS]
        answers = await post_all(stack.url, [request(drawn) for drawn in part], CONCURRENCY)
        memory.append(stack.memory)
        for drawn, answer in zip(part, answers, strict=True):
            check(drawn, answer)
    sent = Counter(drawn[0].model for drawn in todo)
    assert min(sent.values()) > REQUESTS / 10
    growth = memory[-1] - memory[PARTS // 2 - 1]
    assert growth < FLAT, [f"{size >> 20} MiB" for size in memory]
