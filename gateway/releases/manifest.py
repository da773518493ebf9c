"""`releases.toml`: a model's declared releases, and how traffic is split over them.

The single source of truth: people, the command line and `/admin` change this file
(`releases/rollout.py`), and every gateway that shares the repository follows it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import ErrorDetails

from gateway.releases.lines import dotted, line_of, syntax

FILE = "releases.toml"
LOCK_FILE = "releases.lock"

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
MAX_WEIGHT = 1_000_000
Name = Annotated[str, Field(pattern=NAME)]
Count = Annotated[int, Field(ge=1, strict=True)]
Weight = Annotated[int, Field(ge=0, le=MAX_WEIGHT, strict=True)]
Share = Annotated[float, Field(gt=0, le=1, strict=True, allow_inf_nan=False)]
Compare = Literal["release", "preprocessor"]

#: Modification time in ns, size in bytes and inode of a file; None if it does not exist.
Stamp = tuple[int, int, int] | None
#: The stamps of a model's `releases.toml` and `releases.lock`.
Signature = tuple[Stamp, Stamp]

_CLOSED = ConfigDict(extra="forbid")


class ManifestError(ValueError):
    """A `releases.toml` that cannot be served; names file, line and key of each fault."""


@dataclass(frozen=True, config=_CLOSED)
class Batching:
    """Bounds of a release's batcher: rows and padded tokens per call to Triton, calls in flight.

    Within these bounds calls are as large as pays, given that each call costs as much as
    `call_tokens` tokens: about 16 on a CPU, hundreds on a GPU. `max_calls` 0 means one more than
    Triton's instances of the model.
    """

    max_rows: Count = 16
    max_tokens: Count = 4096
    call_tokens: Count = 16
    max_calls: Annotated[int, Field(ge=0, strict=True)] = 0


@dataclass(frozen=True, config=_CLOSED)
class Release:
    """One release as declared: a model version and the preprocessor that belongs to it.

    `isolation` says where the preprocessor runs: in an environment of its own, or inside the
    gateway's process. `tolerance` replaces that of the golden cases, for a model that is meant to
    deviate a little from the reference (int8, say). With `load = false` the release is declared,
    but neither its model version nor its preprocessor runs.
    """

    model_version: Count
    preprocessor: Annotated[str, Field(min_length=1)]
    isolation: Literal["environment", "inline"] = "environment"
    tolerance: Annotated[float, Field(ge=0, strict=True, allow_inf_nan=False)] | None = None
    batching: Batching = Batching()
    load: Annotated[bool, Field(strict=True)] = True


@dataclass(frozen=True, config=_CLOSED)
class Shadow:
    """A release that receives copies of a `share` (0 to 1) of the requests and answers nobody.

    `compare` says what is compared: the whole release, or only its preprocessor.
    """

    release: Name
    share: Share = 1.0
    compare: Compare = "release"


@dataclass(frozen=True, config=_CLOSED)
class Manifest:
    """All releases of one model. `traffic` maps release names to weights (any positive sum)."""

    releases: dict[Name, Release]
    traffic: dict[Name, Weight]
    shadow: Shadow | None = None

    @property
    def loaded(self) -> dict[str, Release]:
        """The releases that are to run."""
        return {name: release for name, release in self.releases.items() if release.load}


_MANIFEST = TypeAdapter(Manifest)


def read_each(
    repository: Path, models: tuple[str, ...] = ()
) -> dict[str, Manifest | ManifestError]:
    """Read the manifest of every model folder that has one, or the error that prevents that.

    Raises ManifestError for a missing repository, or a model in `models` without a manifest.
    """
    found: dict[str, Manifest | ManifestError] = {}
    for path in _files(repository, models):
        try:
            found[path.parent.name] = read_one(path)
        except ManifestError as error:
            found[path.parent.name] = error
    if missing := sorted(set(models) - found.keys()):
        raise ManifestError(f"{repository}: no {FILE} for {', '.join(missing)}")
    return found


def read(repository: Path, models: tuple[str, ...] = ()) -> dict[str, Manifest]:
    """Read the manifest of every model folder that has one, by model name, sorted.

    `models` restricts it to these names. Raises ManifestError if any cannot be read.
    """
    manifests = {}
    for model, found in read_each(repository, models).items():
        if isinstance(found, ManifestError):
            raise found
        manifests[model] = found
    return manifests


def read_one(path: Path) -> Manifest:
    """Read one `releases.toml`. Raises ManifestError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: {error}") from None
    return decode(path, text)


def decode(path: Path, text: str) -> Manifest:
    """Read the text of a `releases.toml`; `path` is for messages. Raises ManifestError."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line, reason = syntax(text, error)
        raise ManifestError(f"{path}:{line}: {reason}") from None
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{path}: {error}") from None
    try:
        manifest = _MANIFEST.validate_python(tree)
    except ValidationError as error:
        wrong = [_place_and_reason(detail) for detail in error.errors()]
        raise ManifestError(_told(path, text, wrong)) from None
    if wrong := list(_contradictions(manifest)):
        raise ManifestError(_told(path, text, wrong))
    return manifest


def signature(repository: Path, models: tuple[str, ...] = ()) -> dict[str, Signature]:
    """Return a value that changes whenever a model's manifest or lock does, by model name.

    Reads no file, and so is cheap enough for every second. Raises ManifestError if the repository
    does not exist.
    """
    return {
        path.parent.name: (stamp(path), stamp(path.with_name(LOCK_FILE)))
        for path in _files(repository, models)
    }


def stamp(path: Path) -> Stamp:
    """Return a value that changes whenever the file does, without reading it."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _files(repository: Path, models: tuple[str, ...]) -> list[Path]:
    if not repository.is_dir():
        raise ManifestError(f"{repository}: the model repository does not exist")
    found = sorted(repository.glob(f"*/{FILE}"))
    return [path for path in found if not models or path.parent.name in models]


#: A fault: the keys of the value, and what is wrong with it.
_Fault = tuple[tuple[str, ...], str]


def _place_and_reason(error: ErrorDetails) -> _Fault:
    keys = tuple(map(str, error["loc"]))
    if error["type"] == "missing":
        return keys[:-1], f"the key {keys[-1]} is missing"
    if error["type"] == "unexpected_keyword_argument":
        return keys, "there is no such key"
    if keys[-1] == "[key]":
        return keys[:-1], (
            "a release's name has 1 to 64 letters, digits, '.', '_' or '-',"
            " and begins with a letter or a digit"
        )
    given = error["input"]
    shown = "" if isinstance(given, dict | list) else f", not {given!r}"
    reason = error["msg"].replace("Input should", "it should").replace("valid dictionary", "table")
    return keys, f"{reason}{shown}"


def _contradictions(manifest: Manifest) -> Iterator[_Fault]:
    """Yield faults that types cannot express."""
    if not manifest.releases:
        yield ("releases",), "it declares none"
    for name, weight in manifest.traffic.items():
        if name not in manifest.releases:
            yield ("traffic", name), "no such release is declared"
        elif weight and not manifest.releases[name].load:
            yield ("traffic", name), "the release is not loaded (load = false)"
    if not any(manifest.traffic.values()):
        yield ("traffic",), "no release has a positive weight"
    if manifest.shadow and (name := manifest.shadow.release) not in manifest.releases:
        yield ("shadow", "release"), f"no release {name!r} is declared"
    elif manifest.shadow and not manifest.releases[manifest.shadow.release].load:
        yield ("shadow", "release"), "the release is not loaded (load = false)"


def _told(path: Path, text: str, faults: Sequence[_Fault]) -> str:
    """Describe each fault with its line, in the order of the file."""
    lines = sorted((line_of(text, keys), keys, reason) for keys, reason in faults)
    return "\n".join(
        f"{path}:{line}: {dotted(keys) + ': ' if keys else ''}{reason}"
        for line, keys, reason in lines
    )
