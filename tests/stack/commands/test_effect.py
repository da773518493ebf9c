"""What `gateway release` and `/admin` say of a change is what became of it, in real gateways."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from gateway.releases import lock, manifest
from tests.support.cli import gateway
from tests.support.repository import copied, second_release
from tests.support.stack import Stack, serve

NO_WAIT = {"Prefer": "wait=0"}
UNLOCKED = '[releases.3]\nmodel_version = 1\npreprocessor = "tumor-preprocessor==1.0.0"\n\n'
SECONDS = 60


@pytest.fixture(scope="module", params=["1", "2"], ids=["one process", "two processes"])
def serving(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("effect")
    repository = copied(folder / "repository", ["tumor"])
    second_release(repository / "tumor")
    path = repository / "tumor" / manifest.FILE
    path.write_text(UNLOCKED + path.read_text())
    stack = serve(folder / "run", repository=str(repository), processes=request.param)
    yield stack
    stack.interrupt()


@pytest.fixture
def repository(serving: Stack) -> Iterator[Path]:
    """The served repository; release 1 has all the traffic before and after a test."""
    folder = serving.run_dir.parent / "repository"
    before = (folder / "tumor" / manifest.FILE).read_text()
    yield folder
    (folder / "tumor" / manifest.FILE).write_text(before)
    with serving.client() as client:
        eventually(lambda: model(client)["effect"]["state"] == "in force")


def eventually(holds: Any) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def model(client: httpx.Client) -> dict[str, Any]:
    shown: dict[str, Any] = client.get("/models/tumor").json()
    return shown


def gateways(stack: Stack) -> str:
    """How all gateways of a stack are told."""
    count = len(stack.gateways)
    return f"in force in all {count} gateways" if count else "in force"


def release(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return gateway("release", *arguments, "--repository", str(repository))


def test_a_change_is_in_force_when_the_command_ends(serving: Stack, repository: Path) -> None:
    with serving.client() as client:
        for name in "212":
            done = release(repository, "promote", "tumor", name, "--url", serving.url)
            assert done.returncode == 0, done.stderr
            assert done.stdout.endswith(f"; shadow none: {gateways(serving)}\n")
            for _ in range(4):  # whichever process answers
                shown = httpx.get(f"{serving.url}/models/tumor").json()
                assert shown["traffic"] == {name: 100}
                assert shown["effect"]["state"] == "in force"
        eventually(lambda: f"traffic: tumor: {name}=100\n" in serving.output.read_text())
        assert model(client)["processes"] == (len(serving.gateways) or 1)


def test_a_rejected_release_leaves_the_traffic_and_is_told(
    serving: Stack, repository: Path
) -> None:
    begin = time.monotonic()
    done = release(repository, "traffic", "tumor", "1=50", "3=50", "--url", serving.url)
    assert time.monotonic() - begin < 30, "it waits no longer than needed"
    assert done.returncode == 3
    assert done.stdout == "tumor: traffic 1=50, 3=50; shadow none: declared\n"
    assert done.stderr.startswith("Error: not in force: in force in 0 of ")
    assert "1=100 is in force at " in done.stderr
    assert done.stderr.endswith(
        "release 3 is rejected: it is not locked: run `gateway lock tumor`\n"
    )
    shown = release(repository, "list", "tumor", "--url", serving.url)
    rows = {line.split()[1]: line for line in shown.stdout.splitlines()}
    assert " 50% " in rows["1"]
    assert " 100% " in rows["1"]
    assert rows["3"].endswith(" 0%       rejected: it is not locked: run `gateway lock tumor`")
    assert shown.stderr.startswith("tumor: release 3 is rejected: ")


def test_a_repository_that_the_gateway_does_not_serve(
    serving: Stack, repository: Path, tmp_path: Path
) -> None:
    other = copied(tmp_path / "other", ["tumor"])
    second_release(other / "tumor")
    done = release(other, "promote", "tumor", "2", "--url", serving.url, "--wait", "1")
    assert done.returncode == 3
    assert "not in force after 1 s: " in done.stderr
    assert "has not read the change: does it serve this repository?" in done.stderr
    done = release(other, "rollback", "tumor", "--url", f"{serving.url}/nowhere")
    assert done.returncode == 4
    assert "answers 404" in done.stderr


def test_gateways_that_do_not_answer(serving: Stack, repository: Path) -> None:
    nobody = "http://127.0.0.1:9"
    done = release(repository, "promote", "tumor", "2", "--url", serving.url, "--url", nobody)
    assert done.returncode == 4
    assert done.stdout.endswith(": declared\n")
    assert f"whether it is in force is not known: {nobody}/models/tumor does not" in done.stderr
    more = str((len(serving.gateways) or 1) + 1)
    arguments = ("--gateways", more, "--wait", "1", "--url", serving.url)
    done = release(repository, "promote", "tumor", "1", *arguments)
    assert done.returncode == 3
    assert f" of {more} gateways" in done.stderr


def test_not_waiting(serving: Stack, repository: Path) -> None:
    done = release(repository, "promote", "tumor", "2", "--no-wait")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("; shadow none: declared\n")


def test_a_shadow_of_itself_is_told_everywhere(serving: Stack, repository: Path) -> None:
    told = "the shadow compares release 2 with itself: it has all the traffic"
    url = ("--url", serving.url)
    assert told not in release(repository, "shadow", "tumor", "2", *url).stdout
    done = release(repository, "promote", "tumor", "2", *url)
    assert done.returncode == 0
    assert done.stdout.endswith(f"{gateways(serving)}\n{told}\n")
    assert f"tumor: {told}\n" in release(repository, "list", "tumor", *url).stderr
    eventually(lambda: f"traffic: tumor: 2=100; {told}\n" in serving.output.read_text())
    with serving.client() as client:
        assert model(client)["effect"]["remarks"] == [told]


def test_admin_answers_when_it_is_in_force(serving: Stack, repository: Path) -> None:
    with serving.client() as client:
        answer = client.post("/admin/models/tumor/promote", json={"release": "2"})
        assert answer.status_code == 200
        assert answer.json()["traffic"] == {"2": 100}
        assert answer.json()["effect"] == {"state": "in force", "reasons": [], "remarks": []}
        answer = client.post("/admin/models/tumor/traffic", json={"weights": {"2": 1, "3": 1}})
        assert answer.status_code == 202
        assert answer.json()["traffic"] == {"2": 100}
        assert answer.json()["declared_traffic"]["3"] == 1
        reason = "release 3 is rejected: it is not locked: run `gateway lock tumor`"
        assert answer.json()["effect"]["state"] == "refused"
        assert answer.json()["effect"]["reasons"] == [reason]


def test_admin_need_not_wait(serving: Stack, repository: Path) -> None:
    with serving.client() as client:
        change = {"release": "2"}
        answer = client.post("/admin/models/tumor/promote", json=change, headers=NO_WAIT)
        assert answer.status_code == 202
        assert answer.json()["effect"]["state"] == "pending"
        eventually(lambda: model(client)["traffic"] == {"2": 100})


def test_loading_is_waited_for(serving: Stack, repository: Path) -> None:
    url = ("--url", serving.url)
    done = release(repository, "unload", "tumor", "2", *url)
    assert done.returncode == 0, done.stderr
    with serving.client() as client:
        eventually(lambda: "2" not in model(client)["releases"])
        done = release(repository, "load", "tumor", "2", *url)
        assert done.returncode == 0, done.stderr
        assert model(client)["releases"]["2"]["state"] == "ready"
    done = release(repository, "unload", "tumor", "3", *url)
    assert done.returncode == 0, done.stderr
    done = release(repository, "load", "tumor", "3", *url)
    assert done.returncode == 3
    assert "release 3 is rejected: it is not locked" in done.stderr


def test_a_release_that_goes_leaves_the_workers_to_the_others(
    serving: Stack, repository: Path
) -> None:
    """Both releases have the same preprocessor; whichever started the workers retires."""
    workers = {process.pid for process in serving.workers("tumor-preprocessor")}
    assert workers
    for stays, goes in ("21", "12"):
        for arguments in (("promote", "tumor", stays), ("unload", "tumor", goes)):
            done = release(repository, *arguments, "--url", serving.url)
            assert done.returncode == 0, done.stderr
        with serving.client() as client:
            eventually(lambda name=goes: name not in model(client)["releases"])
        time.sleep(0.5)
        assert {process.pid for process in serving.workers("tumor-preprocessor")} == workers
        done = release(repository, "load", "tumor", goes, "--url", serving.url)
        assert done.returncode == 0, done.stderr


def test_a_model_comes_changes_and_goes(serving: Stack, repository: Path) -> None:
    """Each in one line, once, on the terminal and in the log."""
    begin, logged = len(serving.output.read_text()), len(serving.log.read_text())
    count = len(serving.gateways) or 1  # each writes a log of its own, and only one on the terminal

    def events(event: str) -> int:
        lines = serving.log.read_text()[logged:].splitlines()
        return sum(f'"{event}"' in line and '"digits"' in line for line in lines)

    def told() -> list[str]:
        lines = serving.output.read_text()[begin:].splitlines()
        return [line.strip() for line in lines if "digits" in line]

    copied(repository.parent / "digits", ["digits"])
    shutil.move(repository.parent / "digits/digits", repository / "digits")
    loading = "loading digits, release 1: digits-preprocessor==1.0.0"
    ready = "ready: digits, release 1"
    eventually(lambda: told() == [loading, ready])
    eventually(lambda: events("release ready") == count)
    config = repository / "digits" / lock.CONFIG
    config.write_text(config.read_text() + "# one comment more\n")
    found = lock.read(repository / "digits")
    assert found
    wrong = {**found.releases["1"].model, lock.CONFIG: "sha256:" + "0" * 64}
    lock.write(repository / "digits", lock.Lock({"1": with_files(found, wrong)}))
    eventually(lambda: len(told()) == 4)
    eventually(lambda: events("release rejected") == count)
    assert told()[2] == loading
    assert told()[3].startswith("rejected: digits, release 1: release 1: model file config.pbtxt")
    assert told()[3].endswith("; it serves as it was declared before")
    rejected = 'gateway_release_rejected{model="digits",release="1"} 1.0'
    with serving.client() as client:
        eventually(lambda: rejected in client.get("/metrics").text)
        problems = client.get("/readyz").json()["problems"]
        assert problems["digits/1"].startswith("as declared now it is rejected: release 1: model")
        newer = client.get("/models/digits").json()["newer"]
        assert newer["1"]["state"] == "rejected"
    right = lock.digest_model(repository / "digits", 1)
    lock.write(repository / "digits", lock.Lock({"1": with_files(found, right)}))
    eventually(lambda: told()[4:] == [loading, ready])
    eventually(lambda: events("release ready") == 2 * count)
    shutil.rmtree(repository / "digits")
    eventually(lambda: told()[6:] == ["removed: digits, release 1"])
    time.sleep(1)
    assert len(told()) == 7
    for event, times in (
        ("release loading", 3),
        ("release ready", 2),
        ("release rejected", 1),
        ("release removed", 1),
    ):
        assert events(event) == times * count, event


def with_files(found: lock.Lock, model: dict[str, str]) -> lock.LockedRelease:
    return msgspec.structs.replace(found.releases["1"], model=model)
