"""A repository of its own for `/admin`, and a client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from gateway.releases.manifest import FILE
from tests.stack.http.admin.server import serving
from tests.support.repository import DIGITS, declared


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two models; `digits` has two releases."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / FILE).write_text(DIGITS)
    return declared(tmp_path / "models")


@pytest.fixture
async def client(repository: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(repository=repository) as client:
        yield client
