"""An embedded Triton with a small repository, not started."""

import shutil
from pathlib import Path

import pytest

from gateway.triton.launcher import EmbeddedOptions
from tests.stack.triton.test_embedded import CANARY
from tests.support.stack import ROOT


@pytest.fixture
def options(tmp_path: Path) -> EmbeddedOptions:
    repository = tmp_path / "model repository"  # a space: Triton's own handling breaks at it
    shutil.copytree(CANARY / "gateway_canary", repository / "plain")
    return EmbeddedOptions(
        repository=repository,
        python=ROOT / ".venv-models/bin/python",
        backends=ROOT / "deploy/triton/backends",
        run_dir=tmp_path / "run dir",
        canary=CANARY,
    )
