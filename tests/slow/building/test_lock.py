"""Locks: written once, the same bytes each time, and every drift from them named."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from gateway_preprocessor import wire

from gateway.building.locking import Locking
from gateway.preprocessing.environments import EnvironmentFailure, Environments
from gateway.releases import lock, manifest
from gateway.releases.lock import LockedRelease, LockError
from gateway.settings import Settings
from tests.support.stack import GATEWAY, ROOT

PROJECT = """
[build-system]
requires = ["hatchling==1.33.0", "packaging==26.3"]
build-backend = "hatchling.build"

[project]
name = "echo-preprocessor"
version = "1.0.0"
requires-python = ">=3.10"
dependencies = ["gateway-preprocessor>=1,<2", "six>=1.15"]

[project.entry-points."gateway.preprocessors"]
echo = "echo_preprocessor:Echo"

[tool.hatch.build.targets.wheel]
packages = ["src/echo_preprocessor"]
"""
CODE = '''
import numpy as np
from gateway_preprocessor import Example, NoParameters, Prepared, Preprocessor, TensorSpec


class Echo(Preprocessor[float, NoParameters, float]):
    """A number in, a number out."""

    input_type = float
    output_type = float
    tensors = (TensorSpec("x", "float32", (1,)),)
    outputs = (TensorSpec("y__0", "float32", (1,)),)
    examples = (Example(1.0),)

    def preprocess(self, instances, parameters):
        return [Prepared({"x": np.array([value], np.float32)}) for value in instances]

    def postprocess(self, rows, contexts):
        return [float(row["y__0"][0]) for row in rows]
'''
GOLDENS = """[{"name": "one", "reference": "by hand", "input": 1.0, "output": 1.0,
"tensors": {"x": {"dtype": "float32", "shape": [1], "data": [1.0]}}}]"""
RELEASES = """[releases.1]
model_version = 1
preprocessor = "echo-preprocessor==1.0.0"

[traffic]
1 = 100
"""
TWO = RELEASES + '\n[releases."2.0-rc"]\nmodel_version = 2\npreprocessor = "echo-preprocessor"\n'
MODULE = "preprocessors/echo/src/echo_preprocessor/__init__.py"
MODEL = "model_repository/echo"


class Project(NamedTuple):
    """A repository with one model, `echo`, and the packages it needs."""

    root: Path
    shared: Path

    @property
    def settings(self) -> Settings:
        return Settings(
            repository=self.root / "model_repository",
            preprocessors=self.root / "preprocessors",
            wheelhouse=self.root / "wheelhouse",
            environments=self.shared,
        )

    @property
    def lock(self) -> Path:
        return self.root / MODEL / lock.FILE

    async def locked(self, *relock: str) -> list[str]:
        said: list[str] = []
        await Locking(self.settings, said.append).lock((), relock)
        return said

    async def check(self) -> list[str]:
        return await Locking(self.settings, print).check(())


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.fixture(scope="session")
def unlocked(tmp_path_factory: pytest.TempPathFactory) -> Project:
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "preprocessors/contract", root / "preprocessors/contract")
    package = f"{MODULE.removesuffix('__init__.py')}"
    write(root, {"preprocessors/echo/pyproject.toml": PROJECT, MODULE: CODE})
    write(root, {f"{package}goldens.json": GOLDENS, f"{MODEL}/releases.toml": RELEASES})
    write(root, {f"{MODEL}/config.pbtxt": "name: 'echo'", f"{MODEL}/1/model.onnx": "graph"})
    return Project(root, tmp_path_factory.mktemp("environments"))


@pytest.fixture(scope="session")
async def original(unlocked: Project) -> Project:
    assert (await unlocked.locked())[-1] == "locked echo, release 1: echo-preprocessor==1.0.0"
    return unlocked


@pytest.fixture
def project(original: Project, tmp_path: Path) -> Project:
    """A copy of the locked project, to be spoilt."""
    shutil.copytree(original.root, tmp_path / "copy")
    return Project(tmp_path / "copy", original.shared)


@pytest.fixture(scope="session")
async def identity(original: Project) -> wire.Identity:
    return await Locking(original.settings, print)._identity(release_of(original))


def release_of(project: Project, name: str = "1") -> LockedRelease:
    found = lock.read(project.root / MODEL)
    assert found
    return found.releases[name]


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


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
    await Locking(project.settings, print).lock((), ("2.0-rc",), upgrade=True)
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
    "a changed line": (
        lambda root: edit(root / MODULE, 'float(row["y__0"][0])', 'float(row["y__0"][0]) + 1'),
        "release 1: the wheel of echo-preprocessor==1.0.0 changed: sha256:",
    ),
    "a changed line of the contract": (
        lambda root: edit(
            root / "preprocessors/contract/src/gateway_preprocessor/errors.py", "a bug", "a fault"
        ),
        "release 1: the wheel of gateway-preprocessor==1.0.0 changed: sha256:",
    ),
    "goldens": (
        lambda root: edit((root / MODULE).with_name("goldens.json"), "by hand", "by heart"),
        "release 1: the wheel of echo-preprocessor==1.0.0 changed: sha256:",
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


async def test_relock_takes_the_change(project: Project) -> None:
    edit(project.root / MODULE, 'float(row["y__0"][0])', 'float(row["y__0"][0]) + 1')
    before = release_of(project)
    await project.locked("1")
    assert await project.check() == []
    after = release_of(project)
    assert after.wheel != before.wheel
    assert (after.contract, after.goldens) == (before.contract, before.goldens)


async def test_relock_of_an_undeclared_release_is_refused(project: Project) -> None:
    with pytest.raises(LockError, match="no release 7 is declared"):
        await project.locked("7")


async def test_a_model_version_without_files_is_not_locked(project: Project) -> None:
    write(project.root, {f"{MODEL}/releases.toml": TWO})
    with pytest.raises(LockError, match="model version 2 has no files"):
        await project.locked()


async def test_results_of_a_version_are_locked_if_they_fit(project: Project) -> None:
    path = f"{MODEL}/2/goldens.json"
    write(project.root, {f"{MODEL}/releases.toml": TWO, f"{MODEL}/2/model.onnx": "graph 2"})
    write(project.root, {path: '[{"name": "two", "output": 2.0}]'})
    before = project.lock.read_bytes()
    with pytest.raises(LockError, match=r"^echo/2/goldens\.json: .* no golden case 'two'; .*'one'"):
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
    with pytest.raises(EnvironmentFailure, match="echo-preprocessor"):
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


def test_drift_needs_no_worker(original: Project) -> None:
    folder = original.root / MODEL
    release = manifest.read(folder.parent)["echo"].releases["1"]
    assert lock.drift(folder, "1", release, release_of(original)) == []
    assert lock.drift(folder, "1", release, None) == ["release 1 is not locked"]


def gateway(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    names = ("repository", "preprocessors", "wheelhouse", "environments")
    given = [f"--{name}={getattr(project.settings, name)}" for name in names]
    known = given if arguments[0] == "lock" else [given[0], given[3]]
    command = [GATEWAY, *arguments, *known]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


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
