"""Edits the text of a `releases.toml`, keeping comments and layout."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import asdict, replace
from typing import Any, NamedTuple, cast

import tomlkit
from tomlkit.items import Table

from gateway.releases.history import shared
from gateway.releases.manifest import Manifest, Shadow


class Wanted(NamedTuple):
    """The desired content of a manifest: weights, shadow, and which releases are not loaded."""

    weights: Mapping[str, int]
    shadow: Shadow | None
    unloaded: frozenset[str]

    @classmethod
    def of(cls, declared: Manifest) -> Wanted:
        """Return a manifest's present content."""
        unloaded = frozenset(declared.releases.keys() - declared.loaded.keys())
        return cls(declared.traffic, declared.shadow, unloaded)


def written(text: str, target: Wanted) -> str:
    """Return the text of a valid manifest, edited to the desired content."""
    document = tomlkit.parse(text)
    _weigh(cast("MutableMapping[str, Any]", document["traffic"]), target.weights)
    releases = cast("MutableMapping[str, MutableMapping[str, Any]]", document["releases"])
    for name, table in releases.items():
        if name in target.unloaded and isinstance(table, Table):
            _append(table, "load", False)
        elif name in target.unloaded:
            table["load"] = False
        elif not table.get("load", True):
            del table["load"]
    if target.shadow is None:
        if document.pop("shadow", None) is not None:
            return document.as_string().rstrip() + "\n"
        return document.as_string()
    if "shadow" not in document:
        document["shadow"] = tomlkit.table()
    shown = cast("MutableMapping[str, Any]", document["shadow"])
    for key, value in asdict(target.shadow).items():
        if shown.get(key) != value:
            shown[key] = value
    return document.as_string()


def means(edited: Manifest, declared: Manifest, target: Wanted) -> bool:
    """Return whether an edit of `declared` has the desired content and no other change."""
    releases = {
        name: replace(release, load=name not in target.unloaded)
        for name, release in declared.releases.items()
    }
    same = edited.releases == releases and edited.shadow == target.shadow
    return same and shared(edited.traffic) == shared(target.weights)


def _weigh(table: MutableMapping[str, Any], weights: Mapping[str, int]) -> None:
    for name in {**table, **weights}:
        weight = weights.get(name, 0)
        if name not in table and isinstance(table, Table):
            _append(table, name, weight)
        elif table.get(name) != weight:
            table[name] = weight


def _append(table: Table, name: str, value: Any) -> None:
    """Add a key after the last one, before comments that belong to the next table."""
    body, tail = table.value.body, []
    while body and body[-1][0] is None:
        tail.append(body.pop()[1])
    table[name] = value
    for item in reversed(tail):
        table.add(item)  # type: ignore[call-overload]  # comments and white space
