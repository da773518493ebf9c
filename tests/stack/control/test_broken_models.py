"""A broken model harms only itself: at the start, while running, and once it is mended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from gateway.releases import lock, manifest
from loadtests.load.service import free_port
from tests.support.goldens import cases
from tests.support.repository import copied
from tests.support.stack import GATEWAY, Stack, serve

GOOD, BROKEN = "tumor", "digits"
SECONDS = 60


class Kind(NamedTuple):
    """A way to break a model's folder, and what `/readyz` then says, under which name."""

    name: str
    damage: Callable[[Path], object]
    part: str
    reason: str
    answers: bool  # whether the model still answers by what it had


def drift(folder: Path) -> None:
    with (folder / "config.pbtxt").open("a") as config:
        config.write("# one comment more\n")


def unlock(folder: Path) -> None:
    path = folder / manifest.FILE
    path.write_text(path.read_text().replace("[releases.1]", "[releases.2]").replace("1 =", "2 ="))


def to_folder(folder: Path) -> None:
    (folder / manifest.FILE).unlink()
    (folder / manifest.FILE).mkdir()


KINDS = [
    Kind(
        "releases.toml is no TOML",
        lambda folder: (folder / manifest.FILE).write_text("[releases"),
        BROKEN,
        "releases.toml:1",
        True,
    ),
    Kind(
        "releases.toml is not text",
        lambda folder: (folder / manifest.FILE).write_bytes(b"\xff\xfe"),
        BROKEN,
        "releases.toml",
        True,
    ),
    Kind("releases.toml is a folder", to_folder, BROKEN, "releases.toml", True),
    Kind(
        "the lock cannot be read",
        lambda folder: (folder / lock.FILE).write_text("no lock"),
        BROKEN,
        "releases.lock",
        True,
    ),
    Kind("a release is not locked", unlock, f"{BROKEN}/2", "rejected: it is not locked", True),
]


def eventually(look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not look():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.1)


def readiness(client: httpx.Client) -> tuple[int, dict[str, Any]]:
    answer = client.get("/readyz")
    return answer.status_code, answer.json()


def status(client: httpx.Client, model: str) -> int:
    return client.post(f"/{model}_single_predict", json=cases(model)[0].single).status_code


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(tmp_path_factory.mktemp("broken") / "repository", [GOOD, BROKEN])


@pytest.fixture(scope="module")
def serving(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    (repository / ".DS_Store").write_bytes(b"\0\1")
    (repository / "notes").mkdir()
    stack = serve(tmp_path_factory.mktemp("run"), repository=str(repository))
    yield stack
    stack.interrupt()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_while_running_then_mended(serving: Stack, repository: Path, kind: Kind) -> None:
    folder = repository / BROKEN
    before = {name: (folder / name).read_bytes() for name in (manifest.FILE, lock.FILE)}
    with serving.client() as client:
        eventually(lambda: readiness(client) == (200, {"status": "ready", "problems": {}}))
        kind.damage(folder)
        try:
            eventually(lambda: kind.part in readiness(client)[1]["problems"])
            code, told = readiness(client)
            assert (code, told["status"]) == (200, "degraded")
            assert kind.reason in told["problems"][kind.part]
            assert status(client, GOOD) == 200
            assert (status(client, BROKEN) == 200) is kind.answers
            assert client.get("/readyz", params={"model": GOOD}).json()["status"] == "ready"
        finally:
            for name, content in before.items():
                if (folder / name).is_dir():
                    (folder / name).rmdir()
                (folder / name).write_bytes(content)
        eventually(lambda: readiness(client)[1]["status"] == "ready")
        eventually(lambda: status(client, BROKEN) == 200)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_at_the_start_then_mended(tmp_path: Path, kind: Kind) -> None:
    repository = copied(tmp_path / "repository", [GOOD, BROKEN])
    folder = repository / BROKEN
    before = {name: (folder / name).read_bytes() for name in (manifest.FILE, lock.FILE)}
    kind.damage(folder)
    stack = serve(tmp_path / "run", repository=str(repository))
    try:
        with stack.client() as client:
            code, told = readiness(client)
            assert (code, told["status"]) == (200, "degraded")
            assert kind.reason in told["problems"][kind.part]
            assert status(client, GOOD) == 200
            assert status(client, BROKEN) == 503
            assert BROKEN in {item["model"] for item in client.get("/models").json()["models"]}
            required = client.get("/readyz", params={"model": BROKEN})
            assert required.status_code == 503
            broken = f'gateway_model_broken{{model="{BROKEN}"}} 1.0'
            assert (broken in client.get("/metrics").text) is (kind.part == BROKEN)
            output = stack.output.read_text()
            told_as = "broken: digits:" if kind.part == BROKEN else "rejected: digits, release 2:"
            assert output.count(told_as) == 1
            for name, content in before.items():
                if (folder / name).is_dir():
                    (folder / name).rmdir()
                (folder / name).write_bytes(content)
            eventually(lambda: status(client, BROKEN) == 200)
            eventually(lambda: readiness(client) == (200, {"status": "ready", "problems": {}}))
            eventually(lambda: f"ready: {BROKEN}, release 1" in stack.output.read_text())
    finally:
        stack.interrupt()


def test_a_drifted_release_is_rejected_at_the_start_and_harms_no_other(tmp_path: Path) -> None:
    repository = copied(tmp_path / "repository", [GOOD, BROKEN])
    drift(repository / BROKEN)
    stack = serve(tmp_path / "run", repository=str(repository))
    try:
        with stack.client() as client:
            code, told = readiness(client)
            assert (code, told["status"]) == (200, "degraded")
            assert "config.pbtxt changed" in told["problems"][f"{BROKEN}/1"]
            assert (status(client, GOOD), status(client, BROKEN)) == (200, 503)
    finally:
        stack.interrupt()


def test_a_required_model_that_cannot_answer_keeps_the_gateway_from_being_ready(
    tmp_path: Path,
) -> None:
    repository = copied(tmp_path / "repository", [GOOD, BROKEN])
    drift(repository / BROKEN)
    port = free_port()
    stack = Stack(
        [GATEWAY, "serve"],
        tmp_path / "run",
        repository=str(repository),
        ready_requires=BROKEN,
        port=str(port),
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:

            def told() -> bool:
                try:
                    code, found = readiness(client)
                except httpx.ConnectError:
                    return False
                return code == 503 and BROKEN in found["problems"]

            eventually(told)
            eventually(lambda: status(client, GOOD) == 200)
            assert readiness(client)[0] == 503
    finally:
        stack.interrupt()
