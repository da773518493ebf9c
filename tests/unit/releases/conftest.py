"""A model's folder with a manifest to edit."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.releases.manifest import FILE
from tests.unit.releases.edited import TEXT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    (made / FILE).write_text(TEXT)
    return made
