"""Tiers by folder, and the stack that most tests share: `make up`, as the README says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import httpx
import pytest
import structlog

from tests.support.stack import ROOT, Stack

TIERS = ("unit", "stack", "slow", "bench")


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Mark each test with its tier: its folder's name, or unit for a preprocessor's own tests."""
    for item in items:
        path = item.path.relative_to(ROOT)
        if path.parts[0] == "preprocessors":
            item.add_marker("unit")
        elif path.parts[1] in TIERS:
            item.add_marker(path.parts[1])


@pytest.fixture(autouse=True)
def unconfigured_logs() -> Iterator[None]:
    """What a command run in this process configured ends with its test."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """All models behind a running gateway; Ctrl-C at the end must leave no process."""
    running = Stack(["make", "up"], tmp_path_factory.mktemp("stack"))
    try:
        yield running.wait_ready()
    finally:
        running.interrupt()


@pytest.fixture(scope="session")
def client(stack: Stack) -> Iterator[httpx.Client]:
    """An HTTP client for the shared stack."""
    with stack.client() as client:
        yield client
