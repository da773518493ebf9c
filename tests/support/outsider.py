"""Another user than the one that runs the tests, who must be root to become it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.stack import ROOT

UID = 10001
#: The interpreter of the tests may lie in a home that is closed to others.
PYTHONS = (sys.executable, "/usr/bin/python3")


def run(*command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user without a home, a name and a cache, with these variables."""
    packages = [path for path in sys.path if path.endswith("site-packages")]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *packages]),
    }
    return subprocess.run(
        command,
        user=UID,
        group=UID,
        extra_groups=[],
        env=environment | variables,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )


def python() -> str:
    """Return an interpreter that may run this checkout as that user; skips where none may."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    for path in PYTHONS:
        try:
            done = run(path, "-c", "import gateway.preprocessing.environments")
        except PermissionError:
            continue
        if done.returncode == 0:
            return path
    pytest.skip("no Python here can be run by another user")


@contextmanager
def open_folder() -> Iterator[Path]:
    """Give a folder that every user can reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
