"""`gateway environments`: builds ahead from locks and wheelhouse alone; lists and collects."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from gateway.preprocessing.environments import Environments, digest
from gateway.preprocessing.wheelhouse import DownloadFailure, complete
from tests.slow.preprocessing.test_environments import wheel
from tests.support.repository import copied
from tests.support.stack import ROOT

#: The shipped model whose release has the fewest dependencies.
SMALL = "tumor"
LOCK = """[releases.1]
model_version = 1
preprocessor = "{name}==1.0"
wheel = "sha256:{zeros}"
contract = "sha256:{zeros}"
goldens = "sha256:{zeros}"
requirements = ["{line}"]

[releases.1.model]
"""


class Project:
    """A repository of locks, its wheelhouse and its environments; no sources beside them."""

    def __init__(self, root: Path) -> None:
        self.repository, self.wheelhouse = root / "models", root / "wheelhouse"
        self.environments, self.image = root / "environments", root / "image"
        for folder in (self.repository, self.wheelhouse):
            folder.mkdir()

    def lock(self, model: str, line: str) -> str:
        """Lock a model's release 1 with one requirement; returns its environment's digest."""
        (self.repository / model).mkdir()
        text = LOCK.format(name=line.partition("==")[0], zeros="0" * 64, line=line)
        (self.repository / model / "releases.lock").write_text(text)
        return digest([line])

    def run(self, command: str, *arguments: str, offline: bool = True) -> Result:
        settings = {
            "repository": self.repository,
            "wheelhouse": self.wheelhouse,
            "environments": self.environments,
            "prebuilt_environments": self.image,
            "offline": str(offline).lower(),
            "preprocessors": "/nonexistent",
        }
        environment = {f"GATEWAY_{name.upper()}": str(value) for name, value in settings.items()}
        return CliRunner(env=environment).invoke(main, ["environments", command, *arguments])


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_build_tries_all_and_names_those_that_fail(project: Project) -> None:
    alpha = wheel(project.wheelhouse, "alpha")
    shared = project.lock("first", alpha)
    project.lock("second", alpha)
    broken = project.lock("absent", alpha.replace("alpha", "beta"))
    done = project.run("build")
    assert done.exit_code == 1
    assert re.fullmatch(rf"{shared}  [0-9.]+ s  first/1, second/1", done.stdout.strip())
    assert f"{broken}  absent/1: offline is set" in done.stderr
    assert "lacks beta==1.0" in done.stderr
    done = project.run("build", "second")
    assert (done.exit_code, done.stdout) == (0, f"{shared}  already there  second/1\n")


def test_build_says_which_model_is_not_locked(project: Project) -> None:
    done = project.run("build", "unheard-of")
    assert done.exit_code == 1
    assert "unheard-of/releases.lock does not exist" in done.stderr


def test_list_shows_prebuilt_ones_and_gc_leaves_them(project: Project) -> None:
    ahead = project.lock("first", wheel(project.wheelhouse, "alpha"))
    assert project.run("build", "--environments", str(project.image)).exit_code == 0
    assert project.run("build").stdout == f"{ahead}  already there  first/1\n"
    new = project.lock("second", wheel(project.wheelhouse, "beta"))
    assert project.run("build", "second").exit_code == 0
    shown = project.run("list").stdout.splitlines()
    assert [re.sub(r" +\d+ MB ", "", line) for line in shown] == [
        f"{ahead} prebuilt: first/1",
        f"{new} second/1",
    ]
    shutil.rmtree(project.repository)
    project.repository.mkdir()
    assert project.run("gc").stdout == f"removed {new}\n"
    assert [line.split()[0] for line in project.run("list").stdout.splitlines()] == [ahead]


def test_a_completed_wheelhouse_builds_without_index_and_cache(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied(project.repository, [SMALL])
    for path in (ROOT / ".run/wheelhouse").glob("*_preprocessor-*.whl"):
        shutil.copy(path, project.wheelhouse)
    done = project.run("build", "--complete-wheelhouse", offline=False)
    assert done.exit_code == 0, done.output
    assert "added numpy-" in done.stdout
    again = project.run("build", "--complete-wheelhouse", offline=False)
    assert again.stdout.strip().endswith(f"already there  {SMALL}/1")
    assert "added" not in again.stdout

    shutil.rmtree(project.environments)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "empty"))
    done = project.run("build")
    assert done.exit_code == 0, done.output
    (python,) = project.environments.glob("*/bin/python")
    code = f"import {SMALL}_preprocessor, numpy; print(numpy.__version__)"
    subprocess.run([python, "-I", "-c", code], check=True, capture_output=True)


def test_completing_needs_an_index(project: Project) -> None:
    done = project.run("build", "--complete-wheelhouse")
    assert done.exit_code == 2
    assert "downloads from an index, which `offline` forbids" in done.stderr


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_wheel_of_another_content_is_neither_taken_nor_replaced(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    """Whether or not the locked one can be had, the wheelhouse has a file of its name already."""
    (tmp_path / "index").mkdir()
    line = wheel(tmp_path / "index", "alpha")
    wheel(project.wheelhouse, "alpha", code="VALUE = 666\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index") if elsewhere else "")
    before = (project.wheelhouse / "alpha-1.0-py3-none-any.whl").read_bytes()
    told = "is not the locked wheel of that name" if elsewhere else "HASHES"
    with pytest.raises(DownloadFailure, match=rf"(?s)alpha.*{told}|{told}.*alpha"):
        complete(project.wheelhouse, [line])
    (left,) = project.wheelhouse.iterdir()
    assert left.read_bytes() == before


async def test_a_python_without_pip_is_named(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = wheel(project.wheelhouse, "alpha")
    bare = await Environments(project.environments, project.wheelhouse, offline=True).python([line])
    monkeypatch.setattr(sys, "executable", str(bare))
    with pytest.raises(DownloadFailure, match=f"{bare} has no pip"):
        complete(project.wheelhouse, [line])
