"""One compose stack for all tests of this folder; `make compose-test` runs them."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.support.compose import PROJECT, Compose, demanded, docker, engine_runs


@pytest.fixture(scope="session")
def compose(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    """The stack, up and healthy; nothing of it is left at the end."""
    if not engine_runs():
        how = "no Docker engine with Compose v2 answers; `.ci/engine make compose-test` brings one"
        if demanded():
            pytest.fail(how)
        pytest.skip(how)
    stack = Compose(tmp_path_factory.mktemp("compose"))
    everything = ("--profile", "load", "--profile", "two-tritons")
    stack(*everything, "down", "--volumes", "--remove-orphans")  # of a run that was cut off
    try:
        stack.up()
        yield stack
    finally:
        for service in ("triton", "gateway", "lb"):  # pytest shows it where something failed
            print(stack("logs", "--no-log-prefix", "--tail", "15", service))
        stack(*everything, "down", "--volumes", "--remove-orphans", "--timeout", "10")


@pytest.fixture
def client(compose: Compose) -> Iterator[httpx.Client]:
    """A client of the load balancer."""
    with compose.client() as client:
        yield client


@pytest.fixture(scope="session")
def edge(compose: Compose) -> str:
    """The name of the network that clients are on."""
    (name,) = docker("network", "ls", "-q", "--filter", f"name={PROJECT}_edge").split()
    return name
