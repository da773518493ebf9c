"""Two replicas behind a network: calls are spread, and a bad one is passed by for a while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from prometheus_client import REGISTRY

from gateway.errors import InferenceFailed
from gateway.triton.embedded import EmbeddedTriton
from gateway.triton.replica import Replica
from tests.support import tritons
from tests.support.proxy import Proxy, proxied
from tests.support.tritons import PLAIN, Calls, instances, pooled, until, users

NOTICED, BACK = 3.0, 5.0


class Pair(NamedTuple):
    """Two Tritons, each behind a proxy, and a pool in front; the first one has the trouble."""

    servers: list[EmbeddedTriton]
    proxies: list[Proxy]
    calls: Calls

    @property
    def first(self) -> Replica:
        """The replica that has the trouble."""
        return self.calls.pool.replicas[0]

    def ejections(self, cause: str) -> float:
        """How often it was passed by for this cause."""
        labels = {"replica": self.first.endpoint, "model": PLAIN.model, "cause": cause}
        return REGISTRY.get_sample_value("gateway_triton_ejections_total", labels) or 0.0


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    """Neither pool reloads models: a dead instance stays dead."""
    async with AsyncExitStack() as stack:
        options = [tritons.options(tmp_path, name=name) for name in ("one", "other")]
        servers = [await stack.enter_async_context(tritons.started(one)) for one in options]
        proxies = [
            await stack.enter_async_context(proxied(server.grpc_endpoint)) for server in servers
        ]
        endpoints = [proxy.endpoint for proxy in proxies]
        calls = await stack.enter_async_context(
            pooled(*endpoints, repository=options[0].repository, reloads=False)
        )
        yield Pair(servers, proxies, calls)


async def test_calls_are_spread(pair: Pair) -> None:
    before = [replica.inference.answers for replica in pair.calls.pool.replicas]
    for _ in range(60):  # one at a time: no replica is ever busier than the other
        await pair.calls.one()
    after = [replica.inference.answers for replica in pair.calls.pool.replicas]
    assert all(now - then > 10 for now, then in zip(after, before, strict=True))


async def test_a_replica_cut_off_is_noticed_and_its_calls_are_answered_by_the_other(
    pair: Pair,
) -> None:
    pool = pair.calls.pool
    async with users(pair.calls, 8) as answers:
        await until(lambda: len(answers) > 200)
        pair.proxies[0].cut = True
        assert await until(lambda: not pair.first.up) < NOTICED
        so_far = len(answers)
        await until(lambda: len(answers) > so_far + 200)
        pair.proxies[0].cut = False
        assert await until(lambda: len(pool.able(pair.calls.verified)) == 2) < BACK
        so_far = pair.first.inference.answers
        await until(lambda: pair.first.inference.answers > so_far + 20)
    assert not [error for error in answers if error]


async def test_a_slow_replica_is_passed_by_and_comes_back(pair: Pair) -> None:
    async with users(pair.calls, 8) as answers:
        await until(lambda: len(answers) > 400)
        pair.proxies[0].delay = 0.3
        await until(lambda: PLAIN in pair.first.passed_by)
        assert "those of its siblings" in pair.first.ailing["plain"]
        await asyncio.sleep(0.5)  # what was under way is answered
        slow, all_of_them = pair.first.inference.answers, len(answers)
        await until(lambda: len(answers) > all_of_them + 200)
        assert pair.first.inference.answers - slow <= 5
        pair.proxies[0].delay = 0.0
        await until(lambda: PLAIN not in pair.first.passed_by)
        so_far = pair.first.inference.answers
        await until(lambda: pair.first.inference.answers > so_far + 50)
    assert not [error for error in answers if error]
    assert pair.first.up
    assert pair.ejections("latency") >= 1


async def test_a_failing_replica_is_passed_by_but_never_the_last(pair: Pair) -> None:
    async with users(pair.calls) as answers:
        await until(lambda: len(answers) > 50)
        for instance in instances(pair.servers[0], "plain"):
            instance.kill()
        await until(lambda: PLAIN in pair.first.passed_by)
        so_far = len(answers)
        await until(lambda: len(answers) > so_far + 200)
    assert not [error for error in answers if error]
    assert pair.ejections("errors") >= 1
    for instance in instances(pair.servers[1], "plain"):
        instance.kill()
    for _ in range(6):
        with pytest.raises(InferenceFailed):
            await pair.calls.one()
    assert PLAIN not in pair.calls.pool.replicas[1].passed_by
