"""A clone on which every preprocessor has moved on still serves, and rolls back to, what is locked.

The clone has the repository's history and nothing else: no wheel, no environment, no cache.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from gateway.releases import lock, manifest
from tests.support import cli, goldens
from tests.support.history import git
from tests.support.repository import copied
from tests.support.stack import ROOT, Stack, serve

#: A gateway applies a change of traffic within this time.
APPLIED_SECONDS = 30
MODELS = ("digits", "langid", "minilm", "minilm_torchscript", "tumor")
SECOND = """
[releases.2]
model_version = 1
preprocessor = "tumor-preprocessor==1.2.0"
batching = { max_rows = 64 }

[traffic]
1 = 100
"""


class Clone(NamedTuple):
    """A working copy and how to use the command line on it."""

    root: Path

    @property
    def settings(self) -> dict[str, str]:
        return {
            "repository": str(self.root / "model_repository"),
            "preprocessors": str(self.root / "preprocessors"),
            "wheelhouse": str(self.root / ".run/wheelhouse"),
            "environments": str(self.root / ".run/environments"),
        }

    def gateway(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return cli.gateway(*arguments, settings=self.settings)


def move_on(preprocessors: Path, minor: int) -> None:
    """Raise every package's minor version, and change a file of each."""
    for path in preprocessors.glob("*/pyproject.toml"):
        text, count = re.subn(
            rf'(?m)^version = "(\d)\.{minor - 1}\.0"',
            rf'version = "\1.{minor}.0"',
            path.read_text(),
        )
        assert count == 1, path
        path.write_text(text)
        with (path.parent / "README.md").open("a") as readme:
            readme.write(f"Changed in {minor}.\n")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """The repository, two versions later: `tumor` has a second release, which has all traffic."""
    root = tmp_path_factory.mktemp("custody")
    work = root / "work"
    copied(work / "model_repository", MODELS)
    shutil.copytree(
        ROOT / "preprocessors",
        work / "preprocessors",
        ignore=shutil.ignore_patterns("__pycache__", ".*"),
    )
    git(work, "init", "-q")
    for minor in (0, 1, 2):
        if minor:
            move_on(work / "preprocessors", minor)
        git(work, "add", "preprocessors")
        git(work, "commit", "-m", f"minor version {minor}")
    releases = work / "model_repository/tumor/releases.toml"
    releases.write_text(releases.read_text().partition("[traffic]")[0] + SECOND)
    locked = Clone(work).gateway("lock", "tumor")
    assert "locked tumor, release 2: tumor-preprocessor==1.2.0" in locked.stdout, locked.stderr
    promoted = Clone(work).gateway("release", "promote", "tumor", "2", "--no-wait")
    assert promoted.returncode == 0, promoted.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UV_CACHE_DIR", str(root / "cache"))
        git(root, "clone", "-q", str(work), str(root / "clone"))
        # Model files and locks are not all under version control here: they come by copy.
        shutil.move(work / "model_repository", root / "clone/model_repository")
        yield Clone(root / "clone")


@pytest.fixture(scope="module")
def stack(clone: Clone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    done = clone.gateway("wheels", "--locked")
    assert done.returncode == 0, done.stderr
    assert len(re.findall("^rebuilt .* from history$", done.stdout, re.MULTILINE)) == 6
    running = serve(tmp_path_factory.mktemp("run"), **clone.settings)
    try:
        yield running
    finally:
        running.interrupt()


def test_a_clone_without_the_wheels_is_not_as_locked(clone: Clone) -> None:
    """Before the fixture `stack` brings them."""
    done = clone.gateway("lock", "--check", "digits")
    assert done.returncode == 1
    assert "digits, release 1: " in done.stderr
    assert "lacks the locked wheel of digits-preprocessor==1.0.0" in done.stderr
    assert "`gateway wheels --locked` gets it" in done.stderr


@pytest.mark.parametrize("model", MODELS)
def test_every_locked_release_is_served(stack: Stack, clone: Clone, model: str) -> None:
    repository = clone.root / "model_repository"
    found = lock.read(repository / model)
    assert found
    declared = manifest.read(repository)[model].releases
    with stack.client() as client:
        for name, release in found.releases.items():
            for case in goldens.cases(model):
                answer = predict(client, case, name)
                assert answer["preprocessor"] == release.preprocessor
                if declared[name].tolerance is None:  # else the alignment gate measured it
                    assert case.wrong(answer["output"], release.model_version) is None


def test_an_operator_rolls_back(stack: Stack, clone: Clone) -> None:
    (case, *_) = goldens.cases("tumor")
    with stack.client() as client:
        assert predict(client, case)["preprocessor"] == "tumor-preprocessor==1.2.0"
        done = clone.gateway("release", "rollback", "tumor", "--url", stack.url)
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith("; shadow none: in force\n")
        answer = predict(client, case)
        assert answer["release"] == "1"
        assert answer["preprocessor"] == "tumor-preprocessor==1.0.0"
        assert case.wrong(answer["output"]) is None


def test_everything_is_as_locked(stack: Stack, clone: Clone) -> None:
    done = clone.gateway("lock", "--check")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("is as locked") == 9


def predict(
    client: httpx.Client, case: goldens.Case, release: str | None = None
) -> dict[str, object]:
    headers = {"X-Release": release} if release else {}
    answer = client.post(f"/{case.model}_single_predict", json=case.single, headers=headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found
