"""Drift: every difference from a lock is named, and the lock stays as it was."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from gateway_preprocessor import wire

from gateway.releases import lock, manifest
from gateway.releases.lock import LockError, digest_file
from tests.slow.building.project import MODEL, MODULE, Project, edit, release_of
from tests.support import cli

SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights replaced": (
        lambda root: (root / MODEL / "1/model.onnx").write_text("other graph"),
        "release 1: model file 1/model.onnx changed: sha256:",
    ),
    "config edited": (
        lambda root: (root / MODEL / "config.pbtxt").write_text("name: 'other'"),
        "release 1: model file config.pbtxt changed: sha256:",
    ),
    "file missing": (
        lambda root: (root / MODEL / "1/model.onnx").unlink(),
        "release 1: model file 1/model.onnx is missing",
    ),
    "file extra": (
        lambda root: (root / MODEL / "1/labels.txt").write_text("a"),
        "release 1: model file 1/labels.txt is not in the lock",
    ),
    "model version": (
        lambda root: edit(root / MODEL / "releases.toml", "model_version = 1", "model_version = 2"),
        "release 1: model_version is 2, locked is 1",
    ),
    "preprocessor version": (
        lambda root: edit(root / MODEL / "releases.toml", "==1.0.0", ">=1.1"),
        "release 1: preprocessor is echo-preprocessor>=1.1, locked is echo-preprocessor==1.0.0",
    ),
    "preprocessor name": (
        lambda root: edit(root / MODEL / "releases.toml", "echo-prep", "ecco-prep"),
        "release 1: preprocessor is ecco-preprocessor==1.0.0, locked is echo-",
    ),
    "lock of contract": (
        lambda root: edit_lock(root, contract=f"sha256:{'0' * 64}"),
        "release 1: the contract (specs, schemas, examples) changed: sha256:",
    ),
    "lock of goldens": (
        lambda root: edit_lock(root, goldens=f"sha256:{'0' * 64}"),
        "release 1: the golden cases changed: sha256:",
    ),
    "lock of wheel": (
        lambda root: edit_lock(root, wheel=f"sha256:{'0' * 64}"),
        "release 1: requirements do not pin echo-preprocessor==1.0.0 to the locked wheel",
    ),
    "no lock": (
        lambda root: (root / MODEL / lock.FILE).unlink(),
        "release 1 is not locked",
    ),
}
#: Sources changed under the version that is locked, and the package.
CHANGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a changed line": (
        lambda root: edit(root / MODULE, 'float(row["y__0"][0])', 'float(row["y__0"][0]) + 1'),
        "echo-preprocessor==1.0.0",
    ),
    "a changed line of the contract": (
        lambda root: edit(
            root / "preprocessors/contract/src/gateway_preprocessor/errors.py", "a bug", "a fault"
        ),
        "gateway-preprocessor==1.0.0",
    ),
    "goldens": (
        lambda root: edit((root / MODULE).with_name("goldens.json"), "by hand", "by heart"),
        "echo-preprocessor==1.0.0",
    ),
}


def edit_lock(root: Path, **changes: str) -> None:
    found = lock.read(root / MODEL)
    assert found
    changed = msgspec.structs.replace(found.releases["1"], **changes)
    lock.write(root / MODEL, lock.Lock({"1": changed}))


@pytest.mark.parametrize(("spoil", "named"), SPOILT.values(), ids=SPOILT)
async def test_each_drift_is_named_and_nothing_is_written(
    project: Project, spoil: Callable[[Path], object], named: str
) -> None:
    spoil(project.root)
    before = project.lock.read_bytes() if project.lock.exists() else None
    problems = await project.check()
    assert len(problems) == 1, problems
    assert problems[0].startswith(f"echo, {named}")
    if before:
        with pytest.raises(LockError, match="immutable: declare a new one") as error:
            await project.locked()
        assert str(error.value).startswith(f"echo, {named}")
        assert project.lock.read_bytes() == before


@pytest.mark.parametrize(("change", "package"), CHANGED.values(), ids=CHANGED)
@pytest.mark.parametrize("command", ["wheels", "lock --check", "lock", "lock --relock 1"])
def test_no_command_replaces_a_locked_wheel(
    project: Project, change: Callable[[Path], object], package: str, command: str
) -> None:
    wheelhouse = project.settings.wheelhouse
    before = {path.name: digest_file(path) for path in wheelhouse.glob("*.whl")}
    locked = project.lock.read_bytes()
    change(project.root)
    done = gateway(project, *command.split())
    assert done.returncode == 1
    assert f"but {package} is locked (echo, release 1): sha256:" in done.stderr
    assert "Raise its version, or undo the change" in done.stderr
    assert "Traceback" not in done.stderr
    assert {path.name: digest_file(path) for path in wheelhouse.glob("*.whl")} == before
    assert project.lock.read_bytes() == locked


async def test_relock_takes_the_change(project: Project) -> None:
    edit(project.root / MODULE, 'float(row["y__0"][0])', 'float(row["y__0"][0]) + 1')
    edit(project.root / "preprocessors/echo/pyproject.toml", '"1.0.0"', '"1.0.1"')
    edit(project.root / MODEL / "releases.toml", "==1.0.0", "==1.0.1")
    before = release_of(project)
    await project.locked("1")
    assert await project.check() == []
    after = release_of(project)
    assert after.wheel != before.wheel
    assert (after.contract, after.goldens) == (before.contract, before.goldens)


async def test_relock_of_an_undeclared_release_is_refused(project: Project) -> None:
    with pytest.raises(LockError, match="no release 7 is declared"):
        await project.locked("7")


async def test_a_worker_as_locked_does_not_drift(
    original: Project, identity: wire.Identity
) -> None:
    assert lock.drift_of_worker(release_of(original), identity) == []
    seeded = msgspec.structs.replace(identity, installed={**identity.installed, "pip": "24.0"})
    assert lock.drift_of_worker(release_of(original), seeded) == []


@pytest.mark.parametrize(
    ("installed", "named"),
    [
        ({"six": None}, r"dependency six==[\d.]+ is not installed"),
        ({"six": "1.0"}, r"dependency six is 1\.0, locked is [\d.]+"),
        ({"Left_Pad": "9"}, r"dependency left-pad==9 is installed but not locked"),
    ],
)
async def test_a_worker_with_other_dependencies_is_named(
    original: Project, identity: wire.Identity, installed: dict[str, str | None], named: str
) -> None:
    merged = {**identity.installed, **installed}
    other = msgspec.structs.replace(
        identity, installed={name: text for name, text in merged.items() if text}
    )
    (found,) = lock.drift_of_worker(release_of(original), other)
    assert re.fullmatch(named, found)
    assert lock.drift_of_worker(release_of(original), other, "inline") == []


async def test_a_worker_of_another_version_is_named(
    original: Project, identity: wire.Identity
) -> None:
    other = msgspec.structs.replace(identity, distribution="echo-preprocessor==1.0.1", goldens=[])
    for isolation in ("environment", "inline"):
        found = lock.drift_of_worker(release_of(original), other, isolation)
        assert found[0] == ("runs echo-preprocessor==1.0.1, locked is echo-preprocessor==1.0.0")
        assert found[1].startswith("the golden cases changed: sha256:")


def test_drift_needs_no_worker(original: Project) -> None:
    folder = original.root / MODEL
    release = manifest.read(folder.parent)["echo"].releases["1"]
    assert lock.drift(folder, "1", release, release_of(original)) == []
    assert lock.drift(folder, "1", release, None) == ["release 1 is not locked"]


def gateway(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    names = ("repository", "preprocessors", "wheelhouse", "environments")
    given = [f"--{name}={getattr(project.settings, name)}" for name in names]
    known = {"lock": given, "wheels": given[:3]}.get(arguments[0], [given[0], given[3]])
    return cli.gateway(*arguments, *known)


def test_the_command_line_locks_checks_and_collects(project: Project) -> None:
    done = gateway(project, "lock", "--check", "echo")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "echo, release 1: echo-preprocessor==1.0.0 is as locked\n"
    project = Project(project.root, project.root / "environments")
    assert gateway(project, "lock", "echo", "--relock", "1").returncode == 0
    (line,) = gateway(project, "environments", "list").stdout.splitlines()
    assert line.endswith("echo/1")
    assert gateway(project, "environments", "gc").stdout == ""

    (project.root / MODEL / "1/model.onnx").write_text("other")
    done = gateway(project, "lock", "--check")
    assert done.returncode == 1
    assert "echo, release 1: model file 1/model.onnx changed" in done.stderr
    assert "Traceback" not in done.stderr

    project.lock.unlink()
    (line,) = gateway(project, "environments", "list").stdout.splitlines()
    assert line.endswith("unused")
    assert gateway(project, "environments", "gc").stdout.startswith("removed ")
    assert gateway(project, "environments", "list").stdout == ""
