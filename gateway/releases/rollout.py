"""Changes of a model's traffic, shadow and loaded releases: edits of its `releases.toml`.

The command line and `/admin` call these; gateways notice the changed file and follow it. An edit
keeps comments and layout, is checked before it is written, and is atomic. Concurrent editors, also
on other hosts, are serialized by a lock on the file itself. Each edit is recorded in the history
beside it (`releases/history.py`).
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from gateway.releases import history
from gateway.releases.editing import Wanted, means, written
from gateway.releases.history import Action, Change
from gateway.releases.manifest import (
    FILE,
    MAX_WEIGHT,
    Compare,
    Manifest,
    ManifestError,
    Shadow,
    decode,
    stamp,
)
from gateway.system.files import Busy, locked, prepared

_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


class RolloutError(Exception):
    """The change is not possible; the message says why. The file is unchanged."""


def traffic(folder: Path, weights: Mapping[str, int], who: str) -> Manifest:
    """Split the traffic of the model in `folder` by `weights`; other releases get none.

    Returns the new manifest. Raises RolloutError.
    """

    def wanted(declared: Manifest, _: Sequence[Change]) -> Wanted:
        for name, weight in weights.items():
            _require(declared, name, loaded=weight > 0)
            if not 0 <= weight <= MAX_WEIGHT:
                raise RolloutError(
                    f"release {name!r} cannot have the weight {weight}:"
                    f" weights are from 0 to {MAX_WEIGHT}"
                )
        if not any(weights.values()):
            raise RolloutError("no release would have a positive weight, so none would answer")
        return Wanted.of(declared)._replace(weights=weights)

    return _edit(folder, "traffic", who, wanted)


def promote(folder: Path, release: str, who: str) -> Manifest:
    """Send all traffic of the model in `folder` to `release`. Raises RolloutError."""

    def wanted(declared: Manifest, _: Sequence[Change]) -> Wanted:
        _require(declared, release)
        return Wanted.of(declared)._replace(weights={release: 100})

    return _edit(folder, "promote", who, wanted)


def shadow(
    folder: Path, release: str | None, who: str, share: float = 1.0, compare: Compare = "release"
) -> Manifest:
    """Copy `share` of the model's requests to `release`; None stops that. Raises RolloutError."""

    def wanted(declared: Manifest, _: Sequence[Change]) -> Wanted:
        if release is None:
            return Wanted.of(declared)._replace(shadow=None)
        _require(declared, release)
        if not 0 < share <= 1:
            raise RolloutError(f"the share of a shadow must be above 0 and at most 1, not {share}")
        return Wanted.of(declared)._replace(shadow=Shadow(release, share, compare))

    return _edit(folder, "shadow", who, wanted)


def rollback(folder: Path, who: str) -> Manifest:
    """Go back to the traffic before the last change that is not rolled back yet.

    A manual edit counts as a change if the history has the traffic before it. The shadow stays.
    Raises RolloutError.
    """

    def wanted(declared: Manifest, changes: Sequence[Change]) -> Wanted:
        if (weights := history.previous(changes, declared.traffic)) is None:
            raise RolloutError(
                f"nothing to roll back to: {history.HISTORY} records no earlier traffic"
            )
        for name in history.shared(weights):
            _require(declared, name)
        return Wanted.of(declared)._replace(weights=weights)

    return _edit(folder, "rollback", who, wanted)


def load(folder: Path, release: str, who: str) -> Manifest:
    """Have the gateways load a release that was unloaded. Raises RolloutError."""

    def wanted(declared: Manifest, _: Sequence[Change]) -> Wanted:
        _require(declared, release, loaded=False)
        now = Wanted.of(declared)
        return now._replace(unloaded=now.unloaded - {release})

    return _edit(folder, "load", who, wanted, release)


def unload(folder: Path, release: str, who: str) -> Manifest:
    """Have the gateways unload a release that receives no requests; it stays declared.

    Raises RolloutError.
    """

    def wanted(declared: Manifest, _: Sequence[Change]) -> Wanted:
        _require(declared, release, loaded=False)
        copied = declared.shadow and declared.shadow.release == release
        if copied or declared.traffic.get(release):
            raise RolloutError(
                f"release {release!r} gets requests: move its traffic to another release first"
            )
        now = Wanted.of(declared)
        return now._replace(unloaded=now.unloaded | {release})

    return _edit(folder, "unload", who, wanted, release)


def remarks(declared: Manifest) -> list[str]:
    """Return what people should know of a manifest that is valid."""
    shadow, traffic = declared.shadow, history.shared(declared.traffic)
    if shadow and traffic.keys() == {shadow.release}:
        return [f"the shadow compares release {shadow.release} with itself: it has all the traffic"]
    return []


def _require(declared: Manifest, release: str, *, loaded: bool = True) -> None:
    if release not in declared.releases:
        there = ", ".join(declared.releases)
        raise RolloutError(f"no release {release[:64]!r} is declared; there is {there}")
    if loaded and not declared.releases[release].load:
        raise RolloutError(f"release {release!r} is not loaded: load it first")


def _edit(
    folder: Path,
    action: Action,
    who: str,
    wanted: Callable[[Manifest, Sequence[Change]], Wanted],
    release: str | None = None,
) -> Manifest:
    path = (folder / FILE).resolve()
    try:
        with locked(path):
            seen, text = stamp(path), path.read_bytes().decode()
            declared, changes = decode(path, text), history.read(folder)
            target = wanted(declared, changes)
            text = written(text, target)
            edited = decode(path, text)
            if not means(edited, declared, target):
                raise RolloutError(
                    "the file's layout is too unusual for automatic edits: edit it manually"
                )
            if edited == declared:
                return declared
            now, after = datetime.now(UTC), edited.traffic
            before = declared.traffic
            changes += [Change(now, action, who, before, after, edited.shadow, release)]
            lines = history.encode(changes)
            past = folder / history.HISTORY
            with prepared(path, text.encode(), path) as new, prepared(past, lines, path) as log:
                if stamp(path) != seen:
                    raise RolloutError(f"{path} has just been edited manually: try again")
                new.replace(path)
                log.replace(past)
            return edited
    except FileNotFoundError:
        raise RolloutError(f"{folder.parent} has no model {folder.name!r}") from None
    except (ManifestError, UnicodeDecodeError) as error:
        raise RolloutError(f"fix the file first: {error}") from None
    except Busy:
        raise RolloutError(f"{path} is being edited by another process: try again") from None
    except OSError as error:
        hint = "; is the repository read-only?" if error.errno in _READ_ONLY else ""
        raise RolloutError(f"{path} cannot be changed: {error.strerror}{hint}") from None
