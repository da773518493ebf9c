"""Declarations: one that cannot be read keeps what was known, and touches no other model."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.control.declarations import Declaration, read
from gateway.releases import lock, manifest
from gateway.releases.manifest import ManifestError

TEXT = '[releases.1]\nmodel_version = 1\npreprocessor = "p==1"\n\n[traffic]\n1 = 100\n'


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for model in ("a", "b"):
        (tmp_path / model).mkdir()
        (tmp_path / model / manifest.FILE).write_text(TEXT)
    return tmp_path


def test_what_is_declared_and_not_locked(repository: Path) -> None:
    found = read(repository, (), {})
    assert found.keys() == {"a", "b"}
    declared = found["a"].manifest
    assert declared
    assert declared.traffic == {"1": 100}
    assert (found["a"].lock, found["a"].problem) == (None, "")


@pytest.mark.parametrize("name", [manifest.FILE, lock.FILE])
def test_a_broken_file_keeps_what_was_read_last(repository: Path, name: str) -> None:
    before = read(repository, (), {})
    (repository / "a" / name).write_text("broken = = 1")
    found = read(repository, (), before)
    assert name in found["a"].problem
    assert found["a"]._replace(problem="") == before["a"]
    assert found["b"] == before["b"]
    (repository / "a" / name).write_text(TEXT if name == manifest.FILE else "[releases]\n")
    assert read(repository, (), found)["a"].problem == ""


def test_a_model_that_was_never_readable_has_a_problem_alone(repository: Path) -> None:
    (repository / "a" / manifest.FILE).write_bytes(b"\xff\xfe")
    found = read(repository, (), {})["a"]
    assert found == Declaration(problem=found.problem)
    assert manifest.FILE in found.problem


def test_only_chosen_models_are_read(repository: Path) -> None:
    assert read(repository, ("b",), {}).keys() == {"b"}


def test_a_repository_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="does not exist"):
        read(tmp_path / "nowhere", (), {})
