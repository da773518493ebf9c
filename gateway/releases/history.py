"""`releases.history`: the last changes of a model's traffic, one JSON object a line.

It lies beside `releases.toml`; `gateway/releases/rollout.py` writes it, and `rollback` reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec

from gateway.releases.manifest import Shadow

HISTORY = "releases.history"
#: Most changes kept in the history.
KEPT = 100

Action = Literal["promote", "traffic", "shadow", "rollback", "load", "unload"]


class Change(msgspec.Struct, frozen=True):
    """One line of the history. `before` and `after` are weights; `shadow` is the new one.

    `release` was loaded or unloaded.
    """

    time: datetime
    action: Action
    who: str
    before: dict[str, int]
    after: dict[str, int]
    shadow: Shadow | None = None
    release: str | None = None


def read(folder: Path) -> list[Change]:
    """Return the last changes of the model in `folder`, oldest first.

    Other lines (of a merge conflict, say) are ignored.
    """
    changes = []
    with suppress(FileNotFoundError):
        for line in (folder / HISTORY).read_bytes().splitlines():
            with suppress(msgspec.DecodeError):
                changes.append(msgspec.json.decode(line, type=Change))
    return changes


def encode(changes: Sequence[Change]) -> bytes:
    """Return the file's content: the most recent changes."""
    return b"".join(msgspec.json.encode(item) + b"\n" for item in changes[-KEPT:])


def previous(changes: Sequence[Change], now: Mapping[str, int]) -> Mapping[str, int] | None:
    """Return the weights before the last change that is not rolled back; None if unknown.

    Replays the history: each change of traffic can be undone once, the latest first.
    """
    undo: list[Mapping[str, int]] = []
    state: Mapping[str, int] | None = None
    for change in changes:
        if state is not None and shared(state) != shared(change.before):
            undo.append(state)  # the file was edited manually in between
        if change.action == "rollback":
            del undo[-1:]
        elif shared(change.before) != shared(change.after):
            undo.append(change.before)
        state = change.after
    if state is not None and shared(state) != shared(now):
        undo.append(state)
    return undo[-1] if undo else None


def shared(weights: Mapping[str, int]) -> dict[str, int]:
    """Return the weights without the releases that receive no traffic."""
    return {name: weight for name, weight in weights.items() if weight}
