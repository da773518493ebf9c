"""Replicas that come and go with the addresses of a name, under load."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from gateway.triton import replicas
from tests.support import tritons
from tests.support.proxy import Proxy, proxied
from tests.support.tritons import Calls, pooled, until, users

ONE, OTHER = "127.0.0.2", "127.0.0.3"


class Name:
    """What a resolver knows of a name; None if it does not answer."""

    def __init__(self, *addresses: str) -> None:
        self.addresses: Sequence[str] | None = addresses

    async def look_up(self, host: str, port: int) -> Sequence[str]:
        """Return the addresses."""
        assert (host, port > 0) == ("tritons", True)
        if self.addresses is None:
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        return self.addresses


@pytest.fixture
async def named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Name, list[Proxy], Calls]]:
    """Two Tritons at two addresses with one port; the name has the first."""
    monkeypatch.setattr(replicas, "LOOK_UP_PAUSE", 0.2)
    name = Name(ONE)
    async with AsyncExitStack() as stack:
        options = [tritons.options(tmp_path, name=each) for each in ("one", "other")]
        servers = [await stack.enter_async_context(tritons.started(one)) for one in options]
        proxies = [await stack.enter_async_context(proxied(servers[0].grpc_endpoint, ONE))]
        port = int(proxies[0].endpoint.rpartition(":")[2])
        proxies.append(
            await stack.enter_async_context(proxied(servers[1].grpc_endpoint, OTHER, port))
        )
        calls = await stack.enter_async_context(
            pooled(f"dns:tritons:{port}", repository=options[0].repository, look_up=name.look_up)
        )
        yield name, proxies, calls


async def test_replicas_come_and_go_without_a_lost_call(
    named: tuple[Name, list[Proxy], Calls],
) -> None:
    name, proxies, calls = named
    pool, (one, other) = calls.pool, [proxy.endpoint for proxy in proxies]

    def able() -> list[str]:
        return sorted(replica.endpoint for replica in pool.able(calls.verified))

    async with users(calls, 4) as answers:
        await until(lambda: len(answers) > 50)
        assert able() == [one]
        name.addresses = [ONE, OTHER]
        await until(lambda: able() == [one, other])
        added = pool.replicas[1]
        await until(lambda: added.inference.answers > 20)
        name.addresses = [OTHER]
        await until(lambda: [replica.endpoint for replica in pool.replicas] == [other])
        so_far = len(answers)
        await until(lambda: len(answers) > so_far + 50)
        shown = {"replica": one}  # once its last call has ended
        await until(lambda: REGISTRY.get_sample_value("gateway_triton_up", shown) is None)
        # A resolver that fails takes nothing away.
        name.addresses = None
        await until(lambda: pool.unresolved)
        so_far = len(answers)
        await until(lambda: len(answers) > so_far + 50)
        assert able() == [other]
        # An address that comes back is verified anew: another server may be there now.
        verified = calls.verified.loads[one]
        name.addresses = [ONE, OTHER]
        await until(lambda: able() == [one, other])
        assert calls.verified.loads[one] != verified
        assert not pool.unresolved
    assert not [error for error in answers if error]


async def test_the_systems_resolver() -> None:
    assert "127.0.0.1" in await replicas.resolve("localhost", 8001)
    with pytest.raises(OSError, match=r"\S"):
        await replicas.resolve("nowhere.invalid", 8001)
