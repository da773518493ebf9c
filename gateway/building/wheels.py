"""Builds every package of `preprocessors/` as a wheel: the same bytes in every clone."""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from packaging.utils import canonicalize_name, parse_wheel_filename

from gateway.building.custody import Custody
from gateway.preprocessing.environments import EnvironmentFailure, run_uv
from gateway.releases.lock import BYTECODE, LockError, digest_bytes, digest_file
from gateway.system.files import Busy, hold, replace, waiting

#: Records the sources that each wheel was built from; part of the wheelhouse.
STAMPS = "sources.json"
#: Held while wheels are built.
TURN = ".lock"
#: Increment when `_normalised` changes its output, to rebuild every wheel.
FORMAT = 1
EPOCH = (1980, 1, 1, 0, 0, 0)
PLAIN_FILE = 0o100644 << 16


class Wheel(NamedTuple):
    """A wheel of one of the repository's packages; `digest` is `sha256:…`."""

    name: str
    version: str
    digest: str


def build(
    preprocessors: Path,
    wheelhouse: Path,
    custody: Custody,
    say: Callable[[str], None],
    *,
    offline: bool = False,
) -> list[Wheel]:
    """Build every package below `preprocessors` whose sources changed since it was last built.

    Wheels of other versions stay in the wheelhouse, and so does a locked one whose sources changed
    under the same version. Raises LockError naming each such package, or two packages that give
    the same wheel; EnvironmentFailure with uv's output.
    """
    wheelhouse.mkdir(parents=True, exist_ok=True)
    stamps = _read(wheelhouse / STAMPS)
    found: dict[Path, str] = {}
    wheels, problems = [], []
    for folder in sorted(path.parent for path in preprocessors.glob("*/pyproject.toml")):
        stamp, sources, content = stamps.get(folder.name, {}), _sources(folder), None
        path = wheelhouse / stamp.get("wheel", "")
        fresh = stamp.get("sources") == sources and path.is_file()
        if not (fresh and digest_file(path) == stamp.get("digest")):
            name, content = build_one(folder, wheelhouse, offline=offline)
            path, stamp = wheelhouse / name, {"digest": digest_bytes(content)}
        if (other := found.setdefault(path, folder.name)) != folder.name:
            raise LockError(f"{folder.name} and {other} both give {path.name}")
        name, version, *_ = parse_wheel_filename(path.name)
        wheel = Wheel(name, str(version), stamp["digest"])
        if refusal := custody.refusal(*wheel, path):
            problems.append(f"{folder}: {refusal}")
            continue
        if content is not None:
            replace(path, content)
            stamps[folder.name] = {"sources": sources, "wheel": path.name, "digest": wheel.digest}
            replace(wheelhouse / STAMPS, json.dumps(stamps, indent=2, sort_keys=True).encode())
            say(f"built {path.name} {wheel.digest}")
        wheels.append(wheel)
    if problems:
        raise LockError("\n".join(problems))
    return wheels


def names(preprocessors: Path) -> set[str]:
    """Return the canonical names of the packages below `preprocessors`."""
    projects = (path.read_bytes() for path in preprocessors.glob("*/pyproject.toml"))
    return {canonicalize_name(tomllib.loads(text.decode())["project"]["name"]) for text in projects}


@contextmanager
def turn(wheelhouse: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Let one process at a time build into a wheelhouse, and lock what it has built."""
    wheelhouse.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        try:
            held.enter_context(hold(wheelhouse / TURN))
        except Busy:
            say("waiting for another `gateway wheels` or `gateway lock`")
            held.enter_context(waiting(wheelhouse / TURN))
        yield


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        stamps: dict[str, dict[str, Any]] = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}  # only a cache: rebuild everything
    return stamps


def _sources(folder: Path) -> str:
    """Return a digest of everything that a build can see."""
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and BYTECODE not in path.parts and not path.name.startswith(".")
    )
    lines = [f"{digest_file(path)} {path.relative_to(folder).as_posix()}" for path in files]
    return hashlib.sha256("\n".join([str(FORMAT), *lines]).encode()).hexdigest()


def build_one(folder: Path, wheelhouse: Path, *, offline: bool) -> tuple[str, bytes]:
    """Return the file name and the content of a package's wheel. Raises EnvironmentFailure."""
    network = ("--offline", "--find-links", wheelhouse.absolute()) if offline else ()
    with tempfile.TemporaryDirectory() as out:
        try:
            run_uv(
                *("build", "--wheel", "--python", sys.executable, "--out-dir", out, *network),
                *("--no-config", "--no-sources", folder.absolute()),
                SOURCE_DATE_EPOCH="315532800",
            )
        except EnvironmentFailure as error:
            raise EnvironmentFailure(f"{folder.name}: {error}") from None
        (built,) = Path(out).glob("*.whl")
        return built.name, _normalised(built)


def _normalised(wheel: Path) -> bytes:
    """Repack a wheel: uncompressed, sorted, with constant dates and modes.

    Compressed bytes vary with the version of zlib, modes with the checkout.
    """
    with tempfile.TemporaryFile() as file:
        with ZipFile(wheel) as source, ZipFile(file, "w", ZIP_STORED) as target:
            names = [name for name in source.namelist() if not name.endswith("/")]
            for name in sorted(names, key=lambda name: (".dist-info/" in name, name)):
                info = ZipInfo(name, EPOCH)
                info.create_system, info.external_attr = 3, PLAIN_FILE
                target.writestr(info, source.read(name))
        file.seek(0)
        return file.read()
