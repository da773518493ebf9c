"""Locks: written once, the same bytes each time, and every drift from them named."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import msgspec
import pytest

from gateway.building.locking import Locking
from gateway.preprocessing.environments import Environments
from gateway.releases import lock
from gateway.releases.lock import LockError
from tests.slow.building.project import (
    MODEL,
    PROJECT,
    RELEASES,
    TWO,
    Project,
    edit,
    release_of,
    verified,
    write,
)


async def test_what_is_locked(project: Project) -> None:
    locked = release_of(project)
    assert locked.preprocessor == "echo-preprocessor==1.0.0"
    assert locked.model == {
        "1/model.onnx": f"sha256:{hashlib.sha256(b'graph').hexdigest()}",
        "config.pbtxt": lock.digest_file(project.root / MODEL / "config.pbtxt"),
    }
    pins = [lock.pin(line) for line in locked.requirements]
    names = {"echo-preprocessor", "gateway-preprocessor", "msgspec", "numpy", "six"}
    assert names == {pin.name for pin in pins}
    assert all(pin.digests for pin in pins)
    (wheel,) = (project.root / "wheelhouse").glob("echo*.whl")
    assert locked.wheel == lock.digest_file(wheel)
    assert await project.check() == []


async def test_locks_hold_no_address_and_no_path(project: Project) -> None:
    text = project.lock.read_text()
    assert not any(word in text for word in ("http", "://", "file:", "index", str(project.root)))
    assert str(project.root.parent.name) not in text


async def test_locking_twice_gives_the_same_bytes(project: Project, tmp_path: Path) -> None:
    before = project.lock.read_bytes()
    assert await project.locked() == []
    assert project.lock.read_bytes() == before
    await project.locked("1")
    assert project.lock.read_bytes() == before
    elsewhere = tmp_path / "another/clone"
    shutil.copytree(project.root, elsewhere, ignore=shutil.ignore_patterns("wheelhouse"))
    (elsewhere / MODEL / lock.FILE).unlink()
    await Project(elsewhere, tmp_path / "its environments").locked()
    assert (elsewhere / MODEL / lock.FILE).read_bytes() == before


async def test_a_new_release_keeps_earlier_pins_unless_upgraded(project: Project) -> None:
    digest = "sha256:8abb2f1d86890a2dfb989f9a77cfcfd3e47c2a354b01111771326f8aa26e0254"
    old = [line for line in release_of(project).requirements if not line.startswith("six")]
    pinned = msgspec.structs.replace(
        release_of(project), requirements=[*old, f"six==1.16.0 --hash={digest}"]
    )
    lock.write(project.root / MODEL, lock.Lock({"1": pinned}))
    write(project.root, {f"{MODEL}/releases.toml": TWO, f"{MODEL}/2/model.onnx": "graph 2"})
    said = await project.locked()
    assert said == ["locked echo, release 2.0-rc: echo-preprocessor==1.0.0"]
    assert release_of(project) == pinned
    assert any(
        line.startswith("six==1.16.0 ") for line in release_of(project, "2.0-rc").requirements
    )
    await Locking(project.settings, print, verified).lock((), ("2.0-rc",), upgrade=True)
    assert not any(
        line.startswith("six==1.16") for line in release_of(project, "2.0-rc").requirements
    )


async def test_a_release_no_longer_declared_leaves_the_lock(project: Project) -> None:
    write(project.root, {f"{MODEL}/releases.toml": TWO, f"{MODEL}/2/model.onnx": "graph 2"})
    await project.locked()
    write(project.root, {f"{MODEL}/releases.toml": RELEASES})
    assert await project.check() == ["echo, release 2.0-rc is locked but not declared"]
    assert await project.locked() == ["dropped echo, release 2.0-rc: it is no longer declared"]
    assert await project.check() == []


async def test_a_model_version_without_files_is_not_locked(project: Project) -> None:
    write(project.root, {f"{MODEL}/releases.toml": TWO})
    with pytest.raises(LockError, match="model version 2 has no files"):
        await project.locked()


async def test_results_of_a_version_are_locked_if_they_fit(project: Project) -> None:
    path = f"{MODEL}/2/goldens.json"
    write(project.root, {f"{MODEL}/releases.toml": TWO, f"{MODEL}/2/model.onnx": "graph 2"})
    write(project.root, {path: '[{"name": "two", "output": 2.0}]'})
    before = project.lock.read_bytes()
    with pytest.raises(
        LockError,
        match=r"^echo, release 2.0-rc: echo/2/goldens\.json: .* no golden case 'two'; .*'one'",
    ):
        await project.locked()
    assert project.lock.read_bytes() == before
    write(project.root, {path: '[{"name": "one", "output": 2.0}]'})
    await project.locked()
    assert "2/goldens.json" in release_of(project, "2.0-rc").model
    write(project.root, {path: '[{"name": "one", "output": 3.0}]'})
    (problem,) = await project.check()
    assert "release 2.0-rc: model file 2/goldens.json changed" in problem


async def test_a_package_of_the_repository_never_comes_from_an_index(project: Project) -> None:
    edit(project.root / MODEL / "releases.toml", "==1.0.0", ">=1.1")
    told = (
        "echo, release 1: no wheel fits echo-preprocessor>=1.1: the sources have 1.0.0;"
        " locked is echo-preprocessor==1.0.0 (echo, release 1)"
    )
    with pytest.raises(LockError, match=f"^{re.escape(told)}$"):
        await project.locked("1")


async def test_a_package_of_that_name_on_an_index_is_not_taken(
    project: Project, tmp_path: Path
) -> None:
    package = project.root / "preprocessors/six"
    text = PROJECT.replace("echo-preprocessor", "six").replace("echo_preprocessor", "six")
    text = text.replace('version = "1.0.0"', 'version = "1.16.0"').replace(', "six>=1.15"', "")
    write(package, {"pyproject.toml": text, "src/six/__init__.py": "OURS = True"})
    await project.locked("1")
    (wheel,) = (project.root / "wheelhouse").glob("six-*.whl")
    locked = release_of(project).requirements
    assert f"six==1.16.0 --hash={lock.digest_file(wheel)}" in locked
    environments = Environments(project.shared, project.settings.wheelhouse)
    python = await environments.python(locked)
    assert list(python.parents[1].glob("lib/*/site-packages/six/__init__.py"))


def test_markers_choose_the_pins_of_a_python() -> None:
    digest = f" --hash=sha256:{'0' * 64}"
    lines = [
        f"numpy==1.26.4 ; python_full_version < '3.13'{digest}",
        f"numpy==2.5.0 ; python_full_version >= '3.13'{digest}",
        f"colorama==0.4.6 ; sys_platform == 'win32'{digest}",
    ]
    assert lock.pins(lines, "3.11.7")["numpy"].version == "1.26.4"
    assert lock.pins(lines, "3.13.1")["numpy"].version == "2.5.0"
    assert "colorama" not in lock.pins(lines, "3.13.1")


def test_bytecode_is_no_model_file(tmp_path: Path) -> None:
    write(tmp_path, {"1/model.py": "x", "1/__pycache__/model.cpython-311.pyc": "y"})
    assert list(lock.digest_model(tmp_path, 1)) == ["1/model.py"]


def test_what_is_written_is_read(original: Project, tmp_path: Path) -> None:
    odd = msgspec.structs.replace(
        release_of(original), model={'1/a "quoted" naïve 😀.onnx': f"sha256:{'0' * 64}"}
    )
    locked = lock.Lock({"1": release_of(original), "2.0-rc": odd})
    lock.write(tmp_path, locked)
    assert lock.read(tmp_path) == locked
    assert [path.name for path in tmp_path.iterdir()] == [lock.FILE]
    assert lock.read(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("[releases.1]", "[releases.1", r"releases\.lock: .*line 3"),
        ("[releases.1]", "x = 1\n[releases.1]", r"releases\.lock: holds \['x'\] instead"),
        ("model_version = 1", "model_version = 0", r"releases\.1: .*\$\.model_version"),
        ('wheel = "sha256:', 'wheel = "md5:', r"releases\.1: .*\$\.wheel"),
        ("goldens = ", "gold = ", r"releases\.1: .*gold"),
        ('"six==', '"six>=', r"releases\.1: .*\$\.requirements\[4\]"),
        ('"six==', '"https://x/six.whl#', r"releases\.1: .*\$\.requirements\[4\]"),
    ],
)
def test_garbage_is_named_by_file_and_key(
    original: Project, tmp_path: Path, old: str, new: str, named: str
) -> None:
    shutil.copy(original.lock, tmp_path)
    edit(tmp_path / lock.FILE, old, new)
    with pytest.raises(LockError, match=named):
        lock.read(tmp_path)
