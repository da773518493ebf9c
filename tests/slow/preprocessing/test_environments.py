"""Environments: whole or absent, shared, offline, collected; built by the real uv."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.preprocessing.environments import (
    BUILDING,
    EnvironmentFailure,
    Environments,
    digest,
)

BUILD = """
import asyncio, sys
from pathlib import Path
from gateway.preprocessing.environments import Environments
root, wheelhouse, *requirements = sys.argv[1:]
asyncio.run(Environments(Path(root), Path(wheelhouse), offline=True).python(requirements))
"""


@pytest.fixture
def wheelhouse(tmp_path: Path) -> Path:
    folder = tmp_path / "wheelhouse"
    folder.mkdir()
    return folder


@pytest.fixture
def environments(tmp_path: Path, wheelhouse: Path) -> Environments:
    return Environments(tmp_path / "environments", wheelhouse, offline=True)


def wheel(folder: Path, name: str, version: str = "1.0", code: str = "VALUE = 1\n") -> str:
    """Write a wheel of one module; returns the requirement that pins it."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(file, text)
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def run(python: Path, code: str) -> str:
    command = [python, "-I", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def build_and_kill(root: Path, wheelhouse: Path, lines: list[str], moment: float) -> None:
    """Kill a build with all its processes, `moment` seconds after it wrote its first file."""
    command = [sys.executable, "-c", BUILD, str(root), str(wheelhouse), *lines]
    build = subprocess.Popen(command, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(root.glob(f"{BUILDING}*/*")):
        assert build.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.001)
    time.sleep(moment)
    os.killpg(build.pid, signal.SIGKILL)
    build.wait()


async def test_installs_offline_from_a_wheelhouse(
    environments: Environments, wheelhouse: Path
) -> None:
    lines = [wheel(wheelhouse, "alpha", code="VALUE = 41\n"), wheel(wheelhouse, "beta")]
    python = await environments.python(lines)
    assert run(python, "import alpha, beta; print(alpha.VALUE + beta.VALUE)") == "42"
    assert environments.built() == [digest(lines)]


async def test_holds_nothing_but_what_is_locked(
    environments: Environments, wheelhouse: Path
) -> None:
    python = await environments.python([wheel(wheelhouse, "alpha")])
    names = "from importlib.metadata import *; print([d.name for d in distributions()])"
    assert run(python, names) == "['alpha']"


async def test_two_versions_live_side_by_side(environments: Environments, wheelhouse: Path) -> None:
    for version in ("1.0", "2.0"):
        line = wheel(wheelhouse, "alpha", version, f"VALUE = {version!r}\n")
        assert run(await environments.python([line]), "import alpha; print(alpha.VALUE)") == version


async def test_equal_locks_share_one_that_is_built_once(tmp_path: Path, wheelhouse: Path) -> None:
    lines = [wheel(wheelhouse, "alpha")]
    hosts = [Environments(tmp_path / "shared", wheelhouse, offline=True) for _ in range(4)]
    pythons = await asyncio.gather(*(host.python(lines) for host in hosts))
    assert len(set(pythons)) == 1
    born = pythons[0].parents[1].stat().st_mtime_ns
    assert await hosts[0].python(lines) == pythons[0]
    assert pythons[0].parents[1].stat().st_mtime_ns == born
    assert hosts[0].built() == [digest(lines)]


@pytest.mark.parametrize("moment", [0.0, 0.02, 0.05, 0.1])
async def test_a_killed_build_leaves_nothing_half_used(
    tmp_path: Path, wheelhouse: Path, environments: Environments, moment: float
) -> None:
    lines = [wheel(wheelhouse, f"package{i}", code="VALUE = 1\n" * 5000) for i in range(20)]
    root = tmp_path / "environments"
    await asyncio.to_thread(build_and_kill, root, wheelhouse, lines, moment)
    assert environments.built() == []
    assert list(root.glob(f"{BUILDING}*"))
    python = await environments.python(lines)
    code = "import " + ", ".join(f"package{i}" for i in range(20)) + "; print(package19.VALUE)"
    assert run(python, code) == "1"
    environments.collect([digest(lines)])
    assert [path.name for path in root.iterdir() if path.is_dir()] == [digest(lines)]


async def test_collects_only_what_is_unused(environments: Environments, wheelhouse: Path) -> None:
    used, unused = [wheel(wheelhouse, "alpha")], [wheel(wheelhouse, "beta")]
    python = await environments.python(used)
    await environments.python(unused)
    assert environments.collect([digest(used)]) == [digest(unused)]
    assert environments.built() == [digest(used)]
    assert run(python, "import alpha; print(alpha.VALUE)") == "1"
    assert environments.collect([digest(used)]) == []


def test_collecting_where_nothing_was_built_is_nothing(environments: Environments) -> None:
    assert environments.collect([]) == []
    assert environments.built() == []


def changed(folder: Path, _: str) -> None:
    wheel(folder, "alpha", code="VALUE = 666\n")


def missing(folder: Path, _: str) -> None:
    (folder / "alpha-1.0-py3-none-any.whl").unlink()


@pytest.mark.parametrize("spoil", [changed, missing])
async def test_a_wheel_that_is_not_the_locked_one_is_named_and_refused(
    environments: Environments, wheelhouse: Path, spoil: Callable[[Path, str], None]
) -> None:
    lines = [wheel(wheelhouse, "beta"), wheel(wheelhouse, "alpha")]
    spoil(wheelhouse, lines[1])
    with pytest.raises(EnvironmentFailure, match="alpha"):
        await environments.python(lines)
    assert environments.built() == []


async def test_a_requirement_without_hash_is_refused(
    environments: Environments, wheelhouse: Path
) -> None:
    line = wheel(wheelhouse, "alpha").partition(" --hash=")[0]
    with pytest.raises(EnvironmentFailure, match="alpha"):
        await environments.python([line])


async def test_prebuilt_ones_are_looked_in_first_and_never_written(
    tmp_path: Path, wheelhouse: Path
) -> None:
    ahead, new = [wheel(wheelhouse, "alpha")], [wheel(wheelhouse, "beta")]
    image, volume = tmp_path / "image", tmp_path / "volume"
    built = await Environments(image, wheelhouse, offline=True).python(ahead)
    environments = Environments(volume, wheelhouse, offline=True, prebuilt=image)
    assert await environments.python(ahead) == built
    assert not volume.exists()
    assert (await environments.python(new)).is_relative_to(volume)
    assert (environments.prebuilt(), environments.built()) == ([digest(ahead)], [digest(new)])
    assert environments.collect([]) == [digest(new)]
    assert environments.prebuilt() == [digest(ahead)]


@pytest.mark.parametrize("usable", [False, True])
async def test_a_prebuilt_one_without_its_interpreter_is_built_again(
    tmp_path: Path, wheelhouse: Path, usable: bool
) -> None:
    lines = [wheel(wheelhouse, "alpha")]
    image, volume = tmp_path / "image", tmp_path / "volume"
    python = await Environments(image, wheelhouse, offline=True).python(lines)
    if not usable:  # another image has its Python elsewhere
        python.unlink()
        python.symlink_to("/nowhere/python3")
    found = await Environments(volume, wheelhouse, offline=True, prebuilt=image).python(lines)
    assert found.is_relative_to(image if usable else volume)
    assert run(found, "import alpha; print(alpha.VALUE)") == "1"


def test_without_a_prebuilt_folder_there_is_none(tmp_path: Path, wheelhouse: Path) -> None:
    assert Environments(tmp_path, wheelhouse).prebuilt() == []
    assert Environments(tmp_path, wheelhouse, prebuilt=tmp_path / "absent").prebuilt() == []


async def test_offline_names_the_missing_wheels_and_what_to_do(
    environments: Environments, wheelhouse: Path
) -> None:
    here, absent = wheel(wheelhouse, "beta"), wheel(wheelhouse, "alpha")
    (wheelhouse / "alpha-1.0-py3-none-any.whl").rename(wheelhouse / "alpha-2.0-py3-none-any.whl")
    elsewhere = absent.replace("alpha", "gamma").replace(
        " --hash", " ; python_version < '3' --hash"
    )
    with pytest.raises(EnvironmentFailure) as failure:
        await environments.python([here, absent, elsewhere])
    told = str(failure.value)
    assert told.startswith(f"offline is set and the wheelhouse {wheelhouse} lacks alpha==1.0: run ")
    assert "`gateway environments build --complete-wheelhouse`" in told
