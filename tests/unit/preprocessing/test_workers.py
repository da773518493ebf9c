"""Where workers listen: below the working folder, at paths that the kernel takes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from gateway.preprocessing.installed import PreprocessorUnavailable
from gateway.preprocessing.workers import LONGEST_SOCKET, _sockets

PYTHON = Path("/envs/a/bin/python")


def test_below_the_working_folder() -> None:
    folder = _sockets(Path("/run/gateway"), PYTHON, "a-preprocessor")
    assert folder.parent == Path("/run/gateway/workers")
    assert _sockets(Path("/run/gateway"), PYTHON, "b-preprocessor") != folder
    assert _sockets(Path("/run/gateway"), Path("/envs/b/bin/python"), "a-preprocessor") != folder


def test_a_long_working_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")  # noqa: S108 - nothing is written there
    found = {_sockets(Path(f"/srv/{'long/' * 20}{name}"), PYTHON, "a") for name in "ab"}
    assert {folder.parent for folder in found} == {Path(f"/tmp/gateway-{os.getuid()}")}  # noqa: S108
    assert len(found) == 2
    assert all(len(os.fsencode(folder / "99.sock")) <= LONGEST_SOCKET for folder in found)


def test_nothing_is_short_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    long = "/srv/" + "long/" * 20
    monkeypatch.setattr(tempfile, "tempdir", long)
    with pytest.raises(PreprocessorUnavailable) as error:
        _sockets(Path(long), PYTHON, "a")
    assert "paths of sockets may have 107 bytes, which /srv/long/" in str(error.value)
    assert "choose a shorter run_dir or TMPDIR" in str(error.value)
