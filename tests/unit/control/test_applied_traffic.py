"""Applied weights outlast the process, and a folder that cannot be used stops nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.control.applied_traffic import AppliedTraffic


def test_weights_are_there_after_a_restart_by_model(tmp_path: Path) -> None:
    folder = tmp_path / "state/traffic"
    applied = AppliedTraffic(folder)
    assert applied.read("a") == {}
    applied.keep("a", {"1": 100})
    applied.keep("a", {"1": 90, "2": 10})
    applied.keep("b", {"7": 1})
    again = AppliedTraffic(folder)
    assert (again.read("a"), again.read("b")) == ({"1": 90, "2": 10}, {"7": 1})
    assert sorted(path.name for path in folder.iterdir()) == ["a.json", "b.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"1": "much"}', b'{"1": 1.5}', b"\xff"])
def test_a_file_that_is_damaged_counts_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    assert AppliedTraffic(tmp_path).read("a") == {}


def test_the_same_weights_are_written_once(tmp_path: Path) -> None:
    applied = AppliedTraffic(tmp_path)
    applied.keep("a", {"1": 100})
    (tmp_path / "a.json").unlink()
    applied.keep("a", {"1": 100})
    assert not (tmp_path / "a.json").exists()
    applied.keep("a", {"1": 99})
    assert applied.read("a") == {"1": 99}


def test_a_folder_that_cannot_be_written_is_told_and_harms_nothing(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    applied = AppliedTraffic(tmp_path / "state")
    with capture_logs() as logged:
        applied.keep("a", {"1": 100})
        applied.keep("a", {"1": 100})  # told once
    assert [(entry["event"], entry["model"]) for entry in logged] == [
        ("applied traffic not saved", "a")
    ]
    assert applied.read("a") == {}
