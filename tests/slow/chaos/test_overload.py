"""Four times what the machine can answer: the admitted are answered, the others told when."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.chaos.ledger import LATE
from loadtests.chaos.overload import Options, measure
from loadtests.load.stack import Stack
from tests.support.stack import ROOT

pytestmark = pytest.mark.alone


async def test_overload_is_refused_rather_than_answered_late(tmp_path: Path) -> None:
    with Stack(tmp_path, ROOT / "model_repository", {"GATEWAY_MODELS": "minilm,tumor"}) as stack:
        found = await measure(stack, Options(rows=8, factor=4, seconds=8))
    assert found.account.balanced, found.account.problems
    assert found.account.codes["overloaded"] > found.account.codes.get(LATE, 0)
    # Two noisy cores: far from what `make chaos` shows, and far from what it was without.
    assert found.goodput > 0.4 * found.capacity
    assert found.late < 0.2
    assert found.account.refusal_p99 < 2
    assert 1 <= found.retry_after[0] <= found.retry_after[1] <= 30
