"""Custody: a wheel that a lock names is never replaced by other bytes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.building.custody import Custody
from gateway.building.wheels import Wheel, build
from gateway.releases import lock
from gateway.releases.lock import Lock, LockedRelease, LockError, digest_file
from tests.support.stack import ROOT

ZERO = f"sha256:{'0' * 64}"
Build = Callable[[], Wheel]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one package, the contract, and no lock."""
    shutil.copytree(ROOT / "preprocessors/contract", tmp_path / "preprocessors/contract")
    (tmp_path / "models/a").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def built(project: Path) -> Build:
    def build_it() -> Wheel:
        custody = Custody(project / "models")
        (wheel,) = build(project / "preprocessors", project / "wheels", custody, lambda _: None)
        return wheel

    return build_it


def locked(project: Path, *wheels: Wheel) -> None:
    """Lock a release of model `a` for each wheel."""
    releases = {
        str(number): LockedRelease(
            model_version=1,
            preprocessor=f"{wheel.name}=={wheel.version}",
            wheel=wheel.digest,
            contract=ZERO,
            goldens=ZERO,
            requirements=[f"{wheel.name}=={wheel.version} --hash={wheel.digest}"],
            model={},
        )
        for number, wheel in enumerate(wheels, 1)
    }
    lock.write(project / "models/a", Lock(releases))


def edit(project: Path) -> None:
    with (project / "preprocessors/contract/README.md").open("a") as file:
        file.write("One sentence more.\n")


def raise_version(project: Path, version: str) -> None:
    path = project / "preprocessors/contract/pyproject.toml"
    text = path.read_text()
    assert 'version = "1.0.0"' in text
    path.write_text(text.replace('version = "1.0.0"', f'version = "{version}"'))


def test_changed_sources_are_refused_until_the_version_is_raised(
    project: Path, built: Build
) -> None:
    before = built()
    locked(project, before, before)
    assert built() == before
    edit(project)
    for _ in range(2):  # refused each time, not only when it is built
        with pytest.raises(LockError) as error:
            built()
        assert f"{project / 'preprocessors/contract'}: its sources changed" in str(error.value)
        assert "gateway-preprocessor==1.0.0 is locked (a, release 1; a, release 2)" in str(
            error.value
        )
    (path,) = (project / "wheels").glob("*.whl")
    assert digest_file(path) == before.digest
    raise_version(project, "1.0.1")
    assert built().version == "1.0.1"
    assert digest_file(path) == before.digest


def test_a_wheel_overwritten_before_it_was_locked_elsewhere_is_found(
    project: Path, built: Build
) -> None:
    """The wheelhouse agrees with the sources, the lock (pulled from history, say) does not."""
    before = built()
    edit(project)
    assert built().digest != before.digest  # nobody has locked it: free to change
    locked(project, before)
    with pytest.raises(LockError, match="is locked"):
        built()


def test_any_of_several_locked_files_will_do(project: Path, built: Build) -> None:
    before = built()
    locked(project, before._replace(digest=ZERO), before)
    assert built() == before


def test_nothing_is_replaced_while_a_lock_cannot_be_read(project: Path, built: Build) -> None:
    before = built()
    (project / "models/a" / lock.FILE).write_text("releases = 7")
    assert built() == before  # what is not replaced needs no lock
    edit(project)
    with pytest.raises(LockError, match=r"cannot be told: .*a/releases\.lock: holds"):
        built()
    raise_version(project, "1.0.1")
    assert built().version == "1.0.1"
