"""Workers whose surroundings go wrong: their folder swept away, their output a flood."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.goldens import cases
from tests.support.stack import Stack, serve

PACKAGE, WORKERS, SECONDS = "tumor-preprocessor", 2, 30
CASE = cases("tumor")[0]


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = serve(tmp_path_factory.mktemp("w"), models="tumor", workers=str(WORKERS))
    yield stack
    stack.interrupt()


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def folder(stack: Stack) -> Path:
    (found,) = (stack.run_dir / "workers").iterdir()
    return found


def test_they_listen_below_the_working_folder(serving: Stack) -> None:
    names = {path.name for path in folder(serving).iterdir()}
    assert {"owner.lock", "0.sock", "1.sock"} <= names
    assert folder(serving).stat().st_mode & 0o077 == 0


def test_a_folder_that_is_swept_away_is_made_again(serving: Stack) -> None:
    with serving.client() as client:

        def answers() -> bool:
            return client.post("/tumor_single_predict", json=CASE.single).status_code == 200

        before = {process.pid for process in serving.workers(PACKAGE)}
        shutil.rmtree(serving.run_dir / "workers")
        assert answers()  # its connections are still there
        for process in serving.workers(PACKAGE):
            process.kill()
        eventually(lambda: len({p.pid for p in serving.workers(PACKAGE)} - before) == WORKERS)
        eventually(lambda: client.get("/readyz").json()["status"] == "ready")
        assert answers()
        assert (folder(serving) / "0.sock").exists()
