"""The stack that most tests share: `make up`, as the README says, on a free port."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.support.stack import Stack


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
