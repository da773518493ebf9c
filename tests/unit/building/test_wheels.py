"""Wheels: the same bytes from every clone, built only when their sources changed."""

from __future__ import annotations

import os
import shutil
import tomllib
import zipfile
from pathlib import Path

import pytest

from gateway.building.custody import Custody
from gateway.building.wheels import Wheel, build
from gateway.preprocessing.environments import EnvironmentFailure
from gateway.releases.lock import LockError, digest_file
from tests.support.stack import ROOT

PACKAGES = ROOT / "preprocessors"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of one package, elsewhere."""
    shutil.copytree(PACKAGES / "contract", tmp_path / "clone/contract")
    return tmp_path / "clone"


def built(preprocessors: Path, wheelhouse: Path) -> tuple[list[Wheel], list[str]]:
    said: list[str] = []
    return build(preprocessors, wheelhouse, Custody(preprocessors), said.append), said


def test_same_bytes_whatever_the_path_the_modes_and_the_umask(tmp_path: Path, clone: Path) -> None:
    other = tmp_path / "a longer way/to another clone"
    shutil.copytree(clone, other)
    for path in other.rglob("*"):
        path.chmod(0o700)
        os.utime(path, (1e9, 1e9))
    (other / "contract/src/gateway_preprocessor/__pycache__").mkdir(exist_ok=True)
    (other / "contract/src/gateway_preprocessor/__pycache__/x.cpython-311.pyc").write_bytes(b"x")
    first, _ = built(clone, tmp_path / "first")
    before = os.umask(0o077)
    try:
        second, _ = built(other, tmp_path / "second")
    finally:
        os.umask(before)
    assert first == second
    with zipfile.ZipFile(next((tmp_path / "second").glob("*.whl"))) as archive:
        assert archive.testzip() is None
        assert not any("__pycache__" in name for name in archive.namelist())


def test_builds_only_what_changed(tmp_path: Path, clone: Path) -> None:
    wheelhouse = tmp_path / "wheelhouse"
    first, said = built(clone, wheelhouse)
    assert len(said) == 1
    assert first[0].digest in said[0]
    assert built(clone, wheelhouse) == (first, [])
    with (clone / "contract/src/gateway_preprocessor/errors.py").open("a") as file:
        file.write("# one line more\n")
    second, said = built(clone, wheelhouse)
    assert len(said) == 1
    assert second[0].digest != first[0].digest


def test_a_wheel_changed_in_the_wheelhouse_is_built_again(tmp_path: Path, clone: Path) -> None:
    wheelhouse = tmp_path / "wheelhouse"
    first, _ = built(clone, wheelhouse)
    (path,) = wheelhouse.glob("*.whl")
    path.write_bytes(path.read_bytes() + b"\0")
    again, said = built(clone, wheelhouse)
    assert again == first
    assert len(said) == 1
    assert digest_file(path) == first[0].digest


def test_two_packages_of_one_name_and_version_are_refused(tmp_path: Path, clone: Path) -> None:
    shutil.copytree(clone / "contract", clone / "copy")
    with pytest.raises(LockError, match="copy and contract both give gateway_preprocessor-"):
        built(clone, tmp_path / "wheelhouse")


def test_a_package_that_does_not_build_is_named(tmp_path: Path, clone: Path) -> None:
    (clone / "contract/README.md").unlink()
    with pytest.raises(EnvironmentFailure, match=r"(?s)^contract: .*README\.md"):
        built(clone, tmp_path / "wheelhouse")


@pytest.mark.parametrize(
    "path", sorted(PACKAGES.glob("*/pyproject.toml")), ids=lambda p: p.parts[-2]
)
def test_every_package_pins_what_builds_it(path: Path) -> None:
    requires = tomllib.loads(path.read_text())["build-system"]["requires"]
    assert requires == ["hatchling==1.33.0", "packaging==26.3"]
