"""Files that several processes share: locks, and content that is replaced at once."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from gateway.system import files


def test_a_lock_has_one_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    held = files.hold(path)
    with pytest.raises(files.Busy):
        files.hold(path)
    held.close()
    files.hold(path).close()


def test_a_lock_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.hold(tmp_path / "absent/lock")


def test_content_is_replaced_and_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "file"
    umask = os.umask(0o027)
    try:
        files.replace(path, b"first")
    finally:
        os.umask(umask)
    files.replace(path, b"second")
    assert path.read_bytes() == b"second"
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


def test_a_replacement_that_fails_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.mkdir()  # cannot be replaced by a file
    with pytest.raises(OSError, match="file"):
        files.replace(path, b"content")
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


def test_an_editor_keeps_mode_and_shuts_out_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PATIENCE", 0.05)
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o640)
    with files.locked(path), files.prepared(path, b"new", path) as new:
        with pytest.raises(files.Busy), files.locked(path):
            pass
        new.replace(path)
        with pytest.raises(files.Busy), files.locked(path):  # the new one is locked as well
            pass
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", 0o640)
    with files.locked(path):
        pass
