"""Environments and other users: built by one and run by another; built without a home."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.preprocessing.environments import Environments
from tests.slow.preprocessing.test_environments import BUILD, wheel
from tests.support import outsider


@pytest.fixture
def python() -> str:
    return outsider.python()


@pytest.fixture
def folder() -> Iterator[Path]:
    with outsider.open_folder() as folder:
        (folder / "wheelhouse").mkdir()
        yield folder


async def test_an_environment_that_root_built_runs_for_another_user(
    python: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", python)
    monkeypatch.setenv("UV_CACHE_DIR", str(folder / "cache"))
    line = wheel(folder / "wheelhouse", "alpha", code="VALUE = 42\n")
    environments = Environments(folder / "environments", folder / "wheelhouse", offline=True)
    before = os.umask(0o077)  # the strictest, as some hosts set it for root
    try:
        built = await environments.python([line])
    finally:
        os.umask(before)
    done = outsider.run(built, "-I", "-c", "import alpha; print(alpha.VALUE)")
    assert (done.stdout.strip(), done.stderr) == ("42", "")
    done = outsider.run("find", built.parents[1], "!", "-type", "l", "-writable")
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize(
    "variables", [{}, {"HOME": "/root"}, {"XDG_CACHE_HOME": "/proc"}, {"UV_CACHE_DIR": "/sys/uv"}]
)
def test_a_user_without_a_writable_home_builds(
    python: str, folder: Path, variables: dict[str, str]
) -> None:
    line = wheel(folder / "wheelhouse", "alpha", code="VALUE = 42\n")
    root = folder / "volume"
    root.mkdir()
    os.chown(root, outsider.UID, outsider.UID)
    command = (python, "-c", BUILD, root, folder / "wheelhouse", line)
    done = outsider.run(*command, **variables)
    assert done.returncode == 0, done.stderr
    (built,) = root.glob("*/bin/python")
    done = outsider.run(built, "-I", "-c", "import alpha; print(alpha.VALUE)")
    assert done.stdout.strip() == "42"


def test_a_folder_that_cannot_be_written_is_named(python: str, folder: Path) -> None:
    line = wheel(folder / "wheelhouse", "alpha")
    command = (python, "-c", BUILD, folder / "environments", folder / "wheelhouse", line)
    done = outsider.run(*command)
    assert f"cannot build in {folder / 'environments'}: " in done.stderr.splitlines()[-1]
