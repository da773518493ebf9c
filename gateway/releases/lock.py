"""`releases.lock`: digests of everything that a release consists of, and drift from them.

Written once by `gateway lock`; from then on the release is immutable. Contains no address, host or
path outside the model's folder, so that the same sources give the same bytes everywhere.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from gateway_preprocessor import wire
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from gateway.releases import manifest
from gateway.system.files import replace

FILE = manifest.LOCK_FILE
Name = Annotated[str, msgspec.Meta(pattern=manifest.NAME)]
CONFIG = "config.pbtxt"
HEADER = (
    "# Written by `gateway lock`. A release that stands here is immutable: declare a new one.\n"
)
#: Distributions that an environment may have without being locked.
SEEDS = {"pip", "setuptools", "uv"}
BYTECODE = "__pycache__"

Digest = Annotated[str, msgspec.Meta(pattern=r"^sha256:[0-9a-f]{64}$")]
PINNED = r"^[A-Za-z0-9][A-Za-z0-9._-]*==[^\s;]+( ; [^\n]+?)?( --hash=sha256:[0-9a-f]{64})+$"


class LockError(ValueError):
    """A `releases.lock` that cannot be read, written or kept; the message names file and key."""


class LockedRelease(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One release, pinned.

    `preprocessor` is `name==version`. `requirements` are pip's, fully resolved, one per line with
    hashes, including the preprocessor's own wheel. `model` maps paths inside the model's folder to
    digests. `contract` covers the preprocessor's specs and schemas.
    """

    model_version: Annotated[int, msgspec.Meta(ge=1)]
    preprocessor: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]+==\S+$")]
    wheel: Digest
    contract: Digest
    goldens: Digest
    requirements: list[Annotated[str, msgspec.Meta(pattern=PINNED)]]
    model: dict[str, Digest]


class Lock(msgspec.Struct, frozen=True):
    """All locked releases of one model, by name."""

    releases: dict[str, LockedRelease]


class Pin(NamedTuple):
    """One line of the requirements: canonical name, version, marker and digests."""

    name: str
    version: str
    marker: str
    digests: list[str]


def pin(line: str) -> Pin:
    """Read one locked requirement."""
    text, *digests = line.split(" --hash=")
    requirement = Requirement(text)
    (specifier,) = requirement.specifier
    name = canonicalize_name(requirement.name)
    return Pin(name, specifier.version, str(requirement.marker or ""), digests)


def pins(requirements: Sequence[str], python: str) -> dict[str, Pin]:
    """Return the pins that apply on this machine with Python version `python`, by name."""
    here = {"python_full_version": python, "python_version": ".".join(python.split(".")[:2])}
    found = {}
    for line in requirements:
        marker = Requirement(line.split(" --hash=")[0]).marker
        if marker is None or marker.evaluate(here):
            found[pin(line).name] = pin(line)
    return found


def read(folder: Path) -> Lock | None:
    """Read a model folder's lock; None if it has none. Raises LockError."""
    path = folder / FILE
    try:
        found = msgspec.toml.decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LockError(f"{path}: {error}") from None
    releases = found.pop("releases", None)
    if found or not isinstance(releases, dict):
        raise LockError(f"{path}: holds {sorted(found)} instead of [releases]")
    locked = {}
    for name, release in releases.items():
        try:
            locked[msgspec.convert(name, Name)] = msgspec.convert(release, LockedRelease)
        except msgspec.ValidationError as error:
            raise LockError(f"{path}: releases.{name}: {error}") from None
    return Lock(locked)


def write(folder: Path, lock: Lock) -> None:
    """Replace a model folder's lock atomically; the bytes are deterministic."""
    replace(folder / FILE, encode(lock).encode())


def encode(lock: Lock) -> str:
    """Return the lock as TOML: sorted, one requirement or file per line."""
    parts = [HEADER]
    for name, release in sorted(lock.releases.items()):
        fields = msgspec.structs.asdict(release)
        model, requirements = fields.pop("model"), fields.pop("requirements")
        lines = [f"[releases.{_key(name)}]"]
        lines += [f"{field} = {_text(value)}" for field, value in fields.items()]
        lines += ["requirements = [", *(f"    {_text(line)}," for line in requirements), "]", ""]
        lines += [f"[releases.{_key(name)}.model]"]
        lines += [f"{_text(path)} = {_text(value)}" for path, value in sorted(model.items())]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file's content as `sha256:…`."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def digest_bytes(content: bytes) -> str:
    """Return the SHA-256 of a content as `sha256:…`."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def digest_json(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON: sorted keys, no whitespace, UTF-8."""
    plain = msgspec.to_builtins(value)
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return digest_bytes(text.encode())


def digest_model(folder: Path, version: int) -> dict[str, str]:
    """Return the digests of a model version's files and config, by path in `folder`."""
    files = [path for path in (folder / str(version)).rglob("*") if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): digest_file(path)
        for path in sorted([folder / CONFIG, *files])
        if path.exists() and BYTECODE not in path.parts
    }


def drift(
    folder: Path, name: str, release: manifest.Release, locked: LockedRelease | None
) -> list[str]:
    """Return how a declared release and its model's files in `folder` differ from the lock."""
    if locked is None:
        return [f"release {name} is not locked"]
    return [f"release {name}: {text}" for text in _drift(folder, release, locked)]


def _drift(folder: Path, release: manifest.Release, locked: LockedRelease) -> Iterator[str]:
    if release.model_version != locked.model_version:
        yield f"model_version is {release.model_version}, locked is {locked.model_version}"
    distribution, _, version = locked.preprocessor.partition("==")
    try:
        wanted = Requirement(release.preprocessor)
    except InvalidRequirement as error:
        yield f"preprocessor {release.preprocessor!r}: {error}"
    else:
        fits = wanted.specifier.contains(version, prereleases=True)
        if canonicalize_name(wanted.name) != distribution or not fits:
            yield f"preprocessor is {release.preprocessor}, locked is {locked.preprocessor}"
    own = [line for line in locked.requirements if pin(line).name == distribution]
    if [(pin(line).version, pin(line).digests) for line in own] != [(version, [locked.wheel])]:
        yield f"requirements do not pin {locked.preprocessor} to the locked wheel"
    actual = digest_model(folder, locked.model_version)
    for path in sorted(actual.keys() | locked.model.keys()):
        if path not in actual:
            yield f"model file {path} is missing"
        elif path not in locked.model:
            yield f"model file {path} is not in the lock"
        elif actual[path] != locked.model[path]:
            yield f"model file {path} changed: {differs(actual[path], locked.model[path])}"


def drift_of_worker(
    locked: LockedRelease,
    identity: wire.Identity,
    isolation: Literal["environment", "inline"] = "environment",
) -> list[str]:
    """Return how a running worker differs from the lock.

    Inline, the dependencies are the gateway's own: only the resulting identity is compared.
    """
    found = []
    if identity.distribution != locked.preprocessor:
        found.append(f"runs {identity.distribution}, locked is {locked.preprocessor}")
    if isolation == "environment":
        found += _drift_of_dependencies(locked, identity)
    for noun, value, digest in (
        ("contract (specs, schemas, examples)", identity.description, locked.contract),
        ("golden cases", identity.goldens, locked.goldens),
    ):
        if (actual := digest_json(value)) != digest:
            found.append(f"the {noun} changed: {differs(actual, digest)}")
    return found


def _drift_of_dependencies(locked: LockedRelease, identity: wire.Identity) -> Iterator[str]:
    wanted = pins(locked.requirements, identity.python)
    installed: dict[str, str] = {
        canonicalize_name(name): text for name, text in identity.installed.items()
    }
    for name in sorted(wanted.keys() | installed.keys()):
        if name not in installed:
            yield f"dependency {name}=={wanted[name].version} is not installed"
        elif name not in wanted and name not in SEEDS:
            yield f"dependency {name}=={installed[name]} is installed but not locked"
        elif name in wanted and installed[name] != wanted[name].version:
            yield f"dependency {name} is {installed[name]}, locked is {wanted[name].version}"


def differs(actual: str, locked: str) -> str:
    """Show two digests, shortened."""
    return f"{actual[:19]}…, locked is {locked[:19]}…"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _text(name)


def _text(value: Any) -> str:
    # JSON's strings and integers are TOML's, as long as no character beyond the first plane is
    # escaped.
    return json.dumps(value, ensure_ascii=False)
