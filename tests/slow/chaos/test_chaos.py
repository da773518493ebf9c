"""A sample of `make chaos`: faults under load, and an overload, on a real stack.

Here the machine does other work too, so that nothing is asked of how fast the gateway recovers.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from loadtests.chaos.faults import FAULTS
from loadtests.chaos.ledger import Fate
from loadtests.chaos.trial import attempt


@pytest.mark.parametrize("name", ["triton-killed", "descriptors", "disk-full-2"])
async def test_every_request_is_answered_or_refused_truthfully(name: str, tmp_path: Path) -> None:
    fault = FAULTS[name]
    if fault.small and os.geteuid():
        pytest.skip("only root can mount a small disk")
    trial = await attempt(fault, tmp_path)
    assert trial.all.fates[Fate.RIGHT] > 100
    assert not trial.all.fates.get(Fate.WRONG), trial.all.problems
    assert fault.cuts or not trial.all.fates.get(Fate.LOST), trial.all.problems
    assert trial.mended is not None
    if name == "triton-killed":
        assert trial.named is not None
        assert any("triton" in part for part in trial.told)
