"""Killed at any moment, a hundred times: files are the old ones or the new ones, never half."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path
from zipfile import ZipFile

from gateway.building.wheels import STAMPS
from gateway.releases import history, lock, manifest
from tests.slow.building.project import MODEL, MODULE, RELEASES, Project, write
from tests.support.stack import GATEWAY, ROOT

SECOND = RELEASES.replace("releases.1", "releases.2").partition("[traffic]")[0]
KILLS = {"wheels": 33, "lock": 33, "promote": 34}


def start(project: Project, *arguments: str) -> subprocess.Popen[bytes]:
    settings = project.settings
    command = [GATEWAY, *arguments, "--repository", str(settings.repository)]
    if arguments[0] != "release":
        command += ["--wheelhouse", str(settings.wheelhouse)]
        command += ["--preprocessors", str(settings.preprocessors)]
    if arguments[0] == "lock":
        command += ["--environments", str(settings.environments)]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def finished(project: Project, *arguments: str) -> float:
    """Run a command to its end; return the seconds that it took."""
    begin = time.monotonic()
    process = start(project, *arguments)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    return time.monotonic() - begin


class Killer:
    """Kills a command, and what it started, at random moments before its end."""

    def __init__(self, project: Project, kind: str, seconds: float) -> None:
        self._project = project
        self._seconds = seconds
        self._random = random.Random(kind)
        self._left = KILLS[kind]
        self._tries = 4 * self._left

    def __bool__(self) -> bool:
        """Whether there are kills left."""
        assert self._tries, "most ended before they were killed"
        return self._left > 0

    def kill(self, *arguments: str) -> None:
        """Start the command once more. One that ends in time does not count."""
        self._tries -= 1
        process = start(self._project, *arguments)
        try:
            process.communicate(timeout=self._seconds * (0.3 + 0.7 * self._random.random()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            self._left -= 1
        else:
            self._seconds *= 0.95


def change(project: Project, number: int) -> None:
    """Change the preprocessor, and raise its version."""
    path = project.root / MODULE
    path.write_text(f"{path.read_text()}\nCHANGE = {number}\n")
    file = project.root / "preprocessors/echo/pyproject.toml"
    lines = file.read_text().splitlines()
    found = next(index for index, line in enumerate(lines) if line.startswith("version"))
    lines[found] = f'version = "1.{number}.0"'
    file.write_text("\n".join(lines) + "\n")


def whole(wheelhouse: Path) -> None:
    """Check that every wheel can be read to its end."""
    for path in wheelhouse.glob("*.whl"):
        with ZipFile(path) as wheel:
            assert wheel.testzip() is None


def test_wheels(project: Project) -> None:
    wheelhouse = project.settings.wheelhouse
    change(project, 1)
    seconds = finished(project, "wheels")
    killer, number = Killer(project, "wheels", seconds), 1
    while killer:
        number += 1
        change(project, number)
        killer.kill("wheels")
        whole(wheelhouse)
    finished(project, "wheels")
    whole(wheelhouse)
    (last,) = wheelhouse.glob(f"echo_preprocessor-1.{number}.0-*.whl")
    assert last.name in (wheelhouse / STAMPS).read_text()


def test_lock(project: Project) -> None:
    """Each time release 2 is declared anew, so that there is something to write."""
    change(project, 1)
    finished(project, "wheels")
    declared = RELEASES + SECOND.replace("==1.0.0", "==1.1.0")
    before = project.lock.read_bytes()
    write(project.root, {f"{MODEL}/releases.toml": declared})
    finished(project, "lock")  # the environment is there from now on
    after = project.lock.read_bytes()
    project.lock.write_bytes(before)
    killer = Killer(project, "lock", finished(project, "lock"))
    while killer:
        project.lock.write_bytes(before)
        killer.kill("lock")
        assert project.lock.read_bytes() in (before, after)
    project.lock.write_bytes(before)
    finished(project, "lock")
    assert project.lock.read_bytes() == after


def test_promote(project: Project) -> None:
    folder = project.root / MODEL
    file = folder / manifest.FILE
    file.write_text(RELEASES + SECOND)
    command = ("release", "promote", "echo")
    killer = Killer(project, "promote", finished(project, *command, "2", "--no-wait"))
    while killer:
        now = manifest.read_one(file).traffic  # which raises if it is half
        assert sorted(now.values()) == [0, 100]
        killer.kill(*command, "1" if now["2"] else "2", "--no-wait")
        for line in (folder / history.HISTORY).read_text().splitlines():
            assert line.startswith("{")
            assert line.endswith("}")
    finished(project, *command, "1", "--no-wait")
    assert manifest.read_one(file).traffic["1"] == 100
    assert lock.read(folder)
