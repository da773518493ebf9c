"""Changes of a model's traffic and shadow: edits of its `releases.toml`, each kept in a history.

The command line and `/admin` call these; the gateways see the changed file and follow it. An edit
keeps comments and form, is checked before it is written, and appears whole or not at all. Editors
of several processes and hosts take turns: they lock the file itself. `releases.history` beside it
holds the last changes, one JSON object a line; it is what `rollback` reads.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import msgspec
import tomlkit
from tomlkit.items import Table

from gateway.releases.files import Busy, locked, prepared
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

HISTORY = "releases.history"
#: Changes that the history keeps.
KEPT = 100
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)

Action = Literal["promote", "traffic", "shadow", "rollback"]


class RolloutError(Exception):
    """The change is not possible; the message says why, for people. The file is as it was."""


class Change(msgspec.Struct, frozen=True):
    """One line of the history. `before` and `after` are weights; `shadow` is the one since."""

    time: datetime
    action: Action
    who: str
    before: dict[str, int]
    after: dict[str, int]
    shadow: Shadow | None = None


class _Wanted(NamedTuple):
    weights: Mapping[str, int]
    shadow: Shadow | None


def traffic(folder: Path, weights: Mapping[str, int], who: str) -> Manifest:
    """Split the traffic of the model in `folder` by `weights`; other releases get none.

    Returns the manifest as it is now. Raises RolloutError.
    """

    def wanted(declared: Manifest, _: Sequence[Change]) -> _Wanted:
        for name, weight in weights.items():
            _require_declared(declared, name)
            if not 0 <= weight <= MAX_WEIGHT:
                raise RolloutError(
                    f"release {name!r} cannot have the weight {weight}:"
                    f" weights go from 0 to {MAX_WEIGHT}"
                )
        if not any(weights.values()):
            raise RolloutError("no release would have a positive weight: nobody would answer")
        return _Wanted(weights, declared.shadow)

    return _edit(folder, "traffic", who, wanted)


def promote(folder: Path, release: str, who: str) -> Manifest:
    """Give all traffic of the model in `folder` to `release`. Raises RolloutError."""

    def wanted(declared: Manifest, _: Sequence[Change]) -> _Wanted:
        _require_declared(declared, release)
        return _Wanted({release: 100}, declared.shadow)

    return _edit(folder, "promote", who, wanted)


def shadow(
    folder: Path, release: str | None, who: str, share: float = 1.0, compare: Compare = "release"
) -> Manifest:
    """Copy `share` of the model's requests to `release`; None ends it. Raises RolloutError."""

    def wanted(declared: Manifest, _: Sequence[Change]) -> _Wanted:
        if release is None:
            return _Wanted(declared.traffic, None)
        _require_declared(declared, release)
        if not 0 < share <= 1:
            raise RolloutError(f"the share of a shadow is above 0 and at most 1, not {share}")
        return _Wanted(declared.traffic, Shadow(release, share, compare))

    return _edit(folder, "shadow", who, wanted)


def rollback(folder: Path, who: str) -> Manifest:
    """Go back to the traffic before the last change that is not rolled back yet.

    An edit by hand counts as a change as soon as the history knows the traffic before it. The
    shadow stays. Raises RolloutError.
    """

    def wanted(declared: Manifest, changes: Sequence[Change]) -> _Wanted:
        if (weights := _previous(changes, declared.traffic)) is None:
            raise RolloutError(f"nothing to roll back to: {HISTORY} knows no earlier traffic")
        for name in _shared(weights):
            _require_declared(declared, name)
        return _Wanted(weights, declared.shadow)

    return _edit(folder, "rollback", who, wanted)


def history(folder: Path) -> list[Change]:
    """Return the last changes of the model in `folder`, oldest first.

    Lines that are no change (somebody's merge, say) are passed over.
    """
    changes = []
    with suppress(FileNotFoundError):
        for line in (folder / HISTORY).read_bytes().splitlines():
            with suppress(msgspec.DecodeError):
                changes.append(msgspec.json.decode(line, type=Change))
    return changes


def _previous(changes: Sequence[Change], now: Mapping[str, int]) -> Mapping[str, int] | None:
    """Replay the history: each change of traffic can be undone once, the latest first."""
    undo: list[Mapping[str, int]] = []
    state: Mapping[str, int] | None = None
    for change in changes:
        if state is not None and _shared(state) != _shared(change.before):
            undo.append(state)  # somebody edited the file by hand in between
        if change.action == "rollback":
            del undo[-1:]
        elif _shared(change.before) != _shared(change.after):
            undo.append(change.before)
        state = change.after
    if state is not None and _shared(state) != _shared(now):
        undo.append(state)
    return undo[-1] if undo else None


def _shared(weights: Mapping[str, int]) -> dict[str, int]:
    """Leave out the releases without traffic, which make no difference."""
    return {name: weight for name, weight in weights.items() if weight}


def _require_declared(declared: Manifest, release: str) -> None:
    if release not in declared.releases:
        there = ", ".join(declared.releases)
        raise RolloutError(f"no release {release[:64]!r} is declared; there is {there}")


def _edit(
    folder: Path,
    action: Action,
    who: str,
    wanted: Callable[[Manifest, Sequence[Change]], _Wanted],
) -> Manifest:
    path = (folder / FILE).resolve()
    try:
        with locked(path):
            seen, text = stamp(path), path.read_bytes().decode()
            declared, changes = decode(path, text), history(folder)
            target = wanted(declared, changes)
            text = _written(text, target)
            edited = decode(path, text)
            _require_meant(edited, declared, target)
            if edited == declared:
                return declared
            now, after = datetime.now(UTC), edited.traffic
            changes += [Change(now, action, who, declared.traffic, after, edited.shadow)]
            lines = b"".join(msgspec.json.encode(item) + b"\n" for item in changes[-KEPT:])
            past = folder / HISTORY
            with prepared(path, text.encode(), path) as new, prepared(past, lines, path) as log:
                if stamp(path) != seen:
                    raise RolloutError(f"{path} was edited by hand just now: try again")
                new.replace(path)
                log.replace(past)
            return edited
    except FileNotFoundError:
        raise RolloutError(f"{folder.parent} has no model {folder.name!r}") from None
    except (ManifestError, UnicodeDecodeError) as error:
        raise RolloutError(f"the file must be mended by hand first: {error}") from None
    except Busy:
        raise RolloutError(f"{path} is being edited by somebody else: try again") from None
    except OSError as error:
        hint = "; is the repository read-only?" if error.errno in _READ_ONLY else ""
        raise RolloutError(f"{path} cannot be changed: {error.strerror}{hint}") from None


def _written(text: str, target: _Wanted) -> str:
    """Edit the text of a manifest, which is valid, keeping comments and form."""
    document = tomlkit.parse(text)
    table = cast("MutableMapping[str, Any]", document["traffic"])
    for name in {**table, **target.weights}:
        weight = target.weights.get(name, 0)
        if name not in table and isinstance(table, Table):
            _append(table, name, weight)
        elif table.get(name) != weight:
            table[name] = weight
    if target.shadow is None:
        if document.pop("shadow", None) is not None:
            return document.as_string().rstrip() + "\n"
        return document.as_string()
    if "shadow" not in document:
        document["shadow"] = tomlkit.table()
    shown = cast("MutableMapping[str, Any]", document["shadow"])
    for key, value in msgspec.structs.asdict(target.shadow).items():
        if shown.get(key) != value:
            shown[key] = value
    return document.as_string()


def _append(table: Table, name: str, weight: int) -> None:
    """Add a key behind the last one, before comments that lead over to the next table."""
    body, tail = table.value.body, []
    while body and body[-1][0] is None:
        tail.append(body.pop()[1])
    table[name] = weight
    for item in reversed(tail):
        table.add(item)  # type: ignore[call-overload]  # comments and white space


def _require_meant(edited: Manifest, declared: Manifest, target: _Wanted) -> None:
    """Make sure that the edit says what was meant, however the file is written."""
    same = edited.releases == declared.releases and edited.shadow == target.shadow
    if not same or _shared(edited.traffic) != _shared(target.weights):
        raise RolloutError("the file's form is too unusual to be edited; edit it by hand")
