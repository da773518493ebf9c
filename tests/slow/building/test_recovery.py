"""Recovery: a locked wheel comes back from git's history or an index, and by its digest alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from gateway.building.custody import Custody
from gateway.building.recovery import recover
from gateway.building.wheels import Wheel, build
from gateway.releases import lock
from gateway.releases.lock import Lock, LockedRelease, LockError, digest_file
from tests.support.history import git
from tests.support.stack import ROOT

ZERO = f"sha256:{'0' * 64}"
FILE = "gateway_preprocessor-1.0.0-py3-none-any.whl"


class Project(NamedTuple):
    """A working copy with one package, the contract, and the model `a`."""

    root: Path

    @property
    def wheelhouse(self) -> Path:
        return self.root / "wheels"

    def commit(self) -> None:
        git(self.root, "add", "preprocessors")
        git(self.root, "commit", "-m", "a state")

    def edit(self, old: str, new: str) -> None:
        path = self.root / "preprocessors/contract/pyproject.toml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def build(self) -> Wheel:
        custody = Custody(self.root / "models")
        (wheel,) = build(self.root / "preprocessors", self.wheelhouse, custody, lambda _: None)
        return wheel

    def lock(self, digest: str) -> None:
        own = "gateway-preprocessor==1.0.0"
        line = f"{own} --hash={digest}"
        release = LockedRelease(1, own, digest, ZERO, ZERO, [line], {})
        lock.write(self.root / "models/a", Lock({"1": release}))

    def recover(self, *, offline: bool = False) -> list[str]:
        said: list[str] = []
        missing = Custody(self.root / "models").missing(self.wheelhouse, set())
        recover(missing, self.root / "preprocessors", self.wheelhouse, said.append, offline=offline)
        return said


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "models/a").mkdir(parents=True)
    shutil.copytree(ROOT / "preprocessors/contract", tmp_path / "preprocessors/contract")
    made = Project(tmp_path)
    git(made.root, "init", "-q")
    return made


def moved_on(project: Project) -> str:
    """Lock 1.0.0, move the sources to 1.2.0, and lose the wheelhouse; return the digest."""
    project.commit()
    digest = project.build().digest
    project.lock(digest)
    for old, new in (("1.0.0", "1.1.0"), ("1.1.0", "1.2.0")):
        project.edit(f'version = "{old}"', f'version = "{new}"')
        project.commit()
    shutil.rmtree(project.wheelhouse)
    assert project.build().version == "1.2.0"
    return digest


def test_a_locked_version_comes_back_from_history(project: Project) -> None:
    digest = moved_on(project)
    assert project.recover() == [f"rebuilt gateway-preprocessor==1.0.0 {digest} from history"]
    assert digest_file(project.wheelhouse / FILE) == digest
    assert project.recover() == []


def test_of_several_states_of_a_version_the_locked_one_is_taken(project: Project) -> None:
    """Also where the newest state does not build, and where other bytes are in its place."""
    project.commit()
    digest = project.build().digest
    readme = project.root / "preprocessors/contract/README.md"
    readme.write_text("Another text.\n")
    project.commit()
    readme.unlink()
    project.commit()
    project.edit('version = "1.0.0"', 'version = "1.1.0"')
    readme.write_text("Another text.\n")
    (project.wheelhouse / FILE).write_bytes(b"other bytes")
    project.lock(digest)
    project.build()
    assert project.recover() == [f"rebuilt gateway-preprocessor==1.0.0 {digest} from history"]
    assert digest_file(project.wheelhouse / FILE) == digest


def test_a_shallow_clone_says_how_to_get_the_rest(project: Project, tmp_path: Path) -> None:
    moved_on(project)
    shallow = tmp_path / "shallow"
    git(project.root, "clone", "-q", "--depth=1", f"file://{project.root}", str(shallow))
    shutil.copytree(project.root / "models", shallow / "models")
    with pytest.raises(LockError) as error:
        Project(shallow).recover(offline=True)
    assert str(error.value) == (
        "gateway-preprocessor==1.0.0 (a, release 1): the locked wheel cannot be had: none of 0"
        " states of its sources in the history gives it; this clone is shallow:"
        " `git fetch --unshallow` brings the rest; no index may be asked (offline)"
    )


def test_without_a_history_an_index_is_asked(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = moved_on(project)
    project.recover()
    index = tmp_path / "index"
    index.mkdir()
    (project.wheelhouse / FILE).rename(index / FILE)
    shutil.rmtree(project.root / ".git")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(LockError, match=r"(?s)there is no history of .*; no index has it \(ERROR"):
        project.recover()
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    assert project.recover() == [f"downloaded gateway-preprocessor==1.0.0 {digest}"]
    assert digest_file(project.wheelhouse / FILE) == digest


def test_other_bytes_of_that_name_are_never_accepted(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved_on(project)
    project.recover()
    (tmp_path / "index").mkdir()
    (project.wheelhouse / FILE).rename(tmp_path / "index" / FILE)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    project.lock(ZERO)
    with pytest.raises(LockError, match=r"none of 1 states .* gives it; no index has it"):
        project.recover()
    assert not (project.wheelhouse / FILE).exists()
