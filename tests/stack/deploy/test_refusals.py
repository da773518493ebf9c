"""The Python-based backends refuse at load what the C++ backends refuse."""

import re
from typing import Any

import pytest

from tests.stack.deploy.refused_models import REFUSED


@pytest.fixture(scope="module")
async def refusals(served: Any, load_all: Any) -> dict[str, str]:
    """What Triton answered to each bad model's load."""
    for name, (graph, config, _) in REFUSED.items():
        served.write(name, graph, config)
    return await load_all(list(REFUSED))


@pytest.mark.parametrize("name", REFUSED)
async def test_refused_at_load(refusals: dict[str, str], name: str) -> None:
    assert re.search(REFUSED[name][2], refusals[name], re.DOTALL), refusals[name] or "it loaded"
