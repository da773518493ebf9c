"""`releases.toml`: which releases of a model are declared, and how traffic is split over them.

The one source of truth: people, the command line and `/admin` change this file
(`releases/rollout.py`), and every gateway process that shares the repository follows it.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from gateway.releases.lines import dotted, line_of, syntax

FILE = "releases.toml"
LOCK_FILE = "releases.lock"

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Count = Annotated[int, msgspec.Meta(ge=1)]
MAX_WEIGHT = 1_000_000
Weight = Annotated[int, msgspec.Meta(ge=0, le=MAX_WEIGHT)]
Share = Annotated[float, msgspec.Meta(gt=0, le=1)]
Compare = Literal["release", "preprocessor"]

#: Modification time in ns, size in bytes and inode of a file; None where there is none.
Stamp = tuple[int, int, int] | None
#: The stamps of a model's `releases.toml` and `releases.lock`.
Signature = tuple[Stamp, Stamp]

_AT = re.compile(r" - at (?P<name>`key` in )?`\$(?:\[\.\.\.\])?\.?(?P<keys>[^`]*)`$")
_FIELD = re.compile(r"Object (?P<what>contains unknown|missing required) field `(?P<field>.*)`$")


class ManifestError(ValueError):
    """A `releases.toml` that cannot be served; the message names file, line and key."""


class Batching(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds of a release's lane: rows and padded tokens per call to Triton, calls in flight.

    Within them the lane makes calls as large as pays, where a call costs as much as
    `call_tokens` more tokens would: some 16 on a CPU, hundreds on a GPU. 0 in-flight calls stands
    for one more than the instances that Triton runs.
    """

    max_rows: Count = 16
    max_tokens: Count = 4096
    call_tokens: Count = 16
    max_calls: Annotated[int, msgspec.Meta(ge=0)] = 0


class Release(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One release as declared: a model version and the preprocessor that belongs to it.

    `isolation` says where the preprocessor runs: in an environment of its own, or inside the
    gateway's process. `tolerance` replaces the one of the golden cases' results, for a model
    that is meant to differ a little from their reference (int8, say). Without `load` it stands
    by: declared, but neither its model version nor its preprocessor runs.
    """

    model_version: Count
    preprocessor: Annotated[str, msgspec.Meta(min_length=1)]
    isolation: Literal["environment", "inline"] = "environment"
    tolerance: Annotated[float, msgspec.Meta(ge=0)] | None = None
    batching: Batching = Batching()
    load: bool = True


class Shadow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A release that gets a copy of a `share` (0 to 1) of the requests and answers nobody.

    `compare` is how far the copy goes: the whole release, or its preprocessor only.
    """

    release: Name
    share: Share = 1.0
    compare: Compare = "release"


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All releases of one model. `traffic` maps release names to weights (any positive sum)."""

    releases: dict[Name, Release]
    traffic: dict[Name, Weight]
    shadow: Shadow | None = None

    @property
    def loaded(self) -> dict[str, Release]:
        """The releases that are to run."""
        return {name: release for name, release in self.releases.items() if release.load}


#: What msgspec names `[...]` in its paths: the tables whose keys are release names.
_TABLES: dict[str, Any] = {"releases": dict[Name, Release], "traffic": dict[Name, Weight]}


def read_each(
    repository: Path, models: tuple[str, ...] = ()
) -> dict[str, Manifest | ManifestError]:
    """Read the manifest of every model folder that has one: what it says, or why it cannot be read.

    Raises ManifestError for a missing repository, or a name in `models` that declares nothing.
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

    `models` restricts it to those names. Raises ManifestError, also where one cannot be read.
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
        manifest = _convert(tree)
        _agree(manifest)
    except _Wrong as wrong:
        key = f"{dotted(wrong.keys)}: " if wrong.keys else ""
        raise ManifestError(f"{path}:{line_of(text, wrong.keys)}: {key}{wrong.reason}") from None
    return manifest


def signature(repository: Path, models: tuple[str, ...] = ()) -> dict[str, Signature]:
    """Return what changes whenever a model's manifest or lock does, by model name.

    Reads no file, so that it can be asked every second. Raises ManifestError where the
    repository does not exist.
    """
    return {
        path.parent.name: (stamp(path), stamp(path.with_name(LOCK_FILE)))
        for path in _files(repository, models)
    }


def stamp(path: Path) -> Stamp:
    """Return what changes whenever the file does, without reading it."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


class _Wrong(Exception):
    """What is wrong with the value at `keys`."""

    def __init__(self, keys: tuple[str, ...], reason: str) -> None:
        super().__init__(reason)
        self.keys = keys
        self.reason = reason


def _files(repository: Path, models: tuple[str, ...]) -> list[Path]:
    if not repository.is_dir():
        raise ManifestError(f"{repository}: the model repository does not exist")
    found = sorted(repository.glob(f"*/{FILE}"))
    return [path for path in found if not models or path.parent.name in models]


def _convert(tree: dict[str, Any]) -> Manifest:
    """Give the tree its types; entry by entry, for msgspec does not tell which entry is wrong."""
    for table, kind in _TABLES.items():
        entries = tree.get(table)
        for name, value in entries.items() if isinstance(entries, dict) else ():
            try:
                msgspec.convert({name: value}, kind)
            except msgspec.ValidationError as error:
                raise _wrong((table, name), error) from None
    try:
        return msgspec.convert(tree, Manifest)
    except msgspec.ValidationError as error:
        raise _wrong((), error) from None


def _wrong(keys: tuple[str, ...], error: msgspec.ValidationError) -> _Wrong:
    """Take msgspec's message apart: the keys below `keys`, and the reason."""
    reason = _AT.sub("", str(error))
    place = _AT.search(str(error))
    if place and place["name"]:
        return _Wrong(
            keys,
            "a release's name has 1 to 64 letters, digits, '.', '_' or '-',"
            " and begins with a letter or a digit",
        )
    if place and place["keys"]:
        keys = (*keys, *place["keys"].split("."))
    field = _FIELD.match(reason)
    if field and field["what"] == "missing required":
        return _Wrong(keys, f"the key {field['field']} is missing")
    if field:
        return _Wrong((*keys, field["field"]), "there is no such key")
    return _Wrong(keys, reason)


def _agree(manifest: Manifest) -> None:
    """Check what the types cannot say."""
    if not manifest.releases:
        raise _Wrong(("releases",), "it declares none")
    for name in manifest.traffic:
        if name not in manifest.releases:
            raise _Wrong(("traffic", name), "no such release is declared")
        if manifest.traffic[name] and not manifest.releases[name].load:
            raise _Wrong(("traffic", name), "the release is not loaded (load = false)")
    if not any(manifest.traffic.values()):
        raise _Wrong(("traffic",), "no release has a positive weight")
    if manifest.shadow and manifest.shadow.release not in manifest.releases:
        keys, name = ("shadow", "release"), manifest.shadow.release
        raise _Wrong(keys, f"no release {name!r} is declared")
    if manifest.shadow and not manifest.releases[manifest.shadow.release].load:
        raise _Wrong(("shadow", "release"), "the release is not loaded (load = false)")
