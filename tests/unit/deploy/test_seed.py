"""The script that fills an empty model volume, run as its service runs it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.stack import ROOT

SEED = ROOT / "deploy/docker/seed"


def seeded(tmp_path: Path) -> set[str]:
    """Run the script once; returns what the volume holds then."""
    subprocess.run([SEED, tmp_path / "from", tmp_path / "to"], check=True, capture_output=True)
    target = tmp_path / "to"
    return {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def volumes(tmp_path: Path) -> None:
    for model in ("a", "b"):
        folder = tmp_path / "from" / model / "1"
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_text(model)
    (tmp_path / "to").mkdir()


def test_an_empty_volume_gets_all_models_once(tmp_path: Path) -> None:
    (tmp_path / "to/lost+found").mkdir()
    assert seeded(tmp_path) == {"a/1/model.onnx", "b/1/model.onnx"}
    (tmp_path / "to/a/1/model.onnx").write_text("mine")
    (tmp_path / "to/b/1/model.onnx").unlink()
    assert seeded(tmp_path) == {"a/1/model.onnx"}
    assert (tmp_path / "to/a/1/model.onnx").read_text() == "mine"


def test_a_volume_that_holds_anything_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "to/mine").touch()
    assert seeded(tmp_path) == {"mine"}


def test_a_copy_that_was_cut_off_is_finished(tmp_path: Path) -> None:
    (tmp_path / "to/.seeding/b").mkdir(parents=True)
    (tmp_path / "to/.seeding/b/half").touch()
    (tmp_path / "to/a").mkdir()
    (tmp_path / "to/a/mine").touch()
    assert seeded(tmp_path) == {"a/mine", "b/1/model.onnx"}
    assert not (tmp_path / "to/.seeding").exists()
