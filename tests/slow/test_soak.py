"""20,000 mixed requests at concurrency 32: no error, every body right, memory flat."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import httpx

from tests.support.goldens import Case, cases
from tests.support.stack import Stack

REQUESTS = 20_000
CONCURRENCY = 32
MODELS = ("minilm", "langid", "digits", "tumor")
#: Every eighth request is a batch of two to six.
BATCH_SHARE = 8
#: Bytes by which the second half may grow: allocator noise over some ten processes.
FLAT = 24 << 20


def draw(rng: random.Random, pools: dict[str, list[Case]]) -> list[Case]:
    """Draw the cases of one request: one for a single, several for a batch."""
    pool = pools[rng.choice(MODELS)]
    if rng.randrange(BATCH_SHARE):
        return [rng.choice(pool)]
    plain = [case for case in pool if not case.golden.parameters]
    return rng.choices(plain, k=rng.randint(2, 6))


async def ask(client: httpx.AsyncClient, drawn: list[Case]) -> None:
    """Send one request and check every result in its answer."""
    model = drawn[0].model
    if len(drawn) == 1:
        answer = await client.post(f"/{model}_single_predict", json=drawn[0].single)
        assert answer.status_code == 200, answer.text
        outputs = [answer.json()["output"]]
    else:
        body = {"inputs": [case.golden.input for case in drawn]}
        answer = await client.post(f"/{model}_batch_predict", json=body)
        assert answer.status_code == 200, answer.text
        outputs = answer.json()["outputs"]
    version = answer.json()["model_version"]
    assert [case.wrong(output, version) for case, output in zip(drawn, outputs, strict=True)] == [
        None for _ in drawn
    ]
    assert answer.json()["model"] == model


async def widen(client: httpx.AsyncClient) -> None:
    """Send the widest batches there are: ONNX Runtime keeps memory for the widest it has seen."""
    body = {"inputs": ["as many tokens as the model takes " * 60] * 128}
    await asyncio.gather(*(client.post("/minilm_batch_predict", json=body) for _ in range(3)))


async def test_20_000_mixed_requests(stack: Stack) -> None:
    rng = random.Random(7)
    # Texts of 256 tokens cost ten times the others and would only make the run longer.
    pools = {m: [c for c in cases(m) if len(str(c.golden.input)) < 20_000] for m in MODELS}
    todo = iter([draw(rng, pools) for _ in range(REQUESTS)])
    sent: Counter[str] = Counter()
    memory: dict[int, int] = {}

    async def user(client: httpx.AsyncClient) -> None:
        for drawn in todo:
            await ask(client, drawn)
            sent[drawn[0].model] += 1
            if (done := sent.total()) % (REQUESTS // 8) == 0:
                memory[done] = stack.memory

    async with httpx.AsyncClient(base_url=stack.url, timeout=60) as client:
        await widen(client)
        async with asyncio.TaskGroup() as users:
            for _ in range(CONCURRENCY):
                users.create_task(user(client))

    assert sent.total() == REQUESTS
    assert min(sent.values()) > REQUESTS / 5
    growth = memory[REQUESTS] - memory[REQUESTS // 2]
    assert growth < FLAT, {count: f"{size >> 20} MiB" for count, size in memory.items()}
