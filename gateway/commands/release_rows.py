"""The table of `gateway release list`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from gateway.commands.gateways import Model
from gateway.releases import history
from gateway.releases.manifest import Manifest

HEADER = ["model", "release", "version", "preprocessor", "declared", "shadow", "last change"]


def rows(
    repository: Path, manifests: Mapping[str, Manifest], served: Mapping[str, Model] | None
) -> Iterator[list[str]]:
    """Yield the header and a row for each declared release.

    `served` is what a gateway tells of its models: the applied traffic and the states.
    """
    yield HEADER + ([] if served is None else ["applied", "state"])
    for model, declared in manifests.items():
        copy, last_change = declared.shadow, _last_change(repository / model)
        for number, (name, item) in enumerate(declared.releases.items()):
            copied = f"{copy.share:.4g} {copy.compare}" if copy and copy.release == name else "-"
            share = _share(declared.traffic, name) if item.load else "unloaded"
            row = [model, name, str(item.model_version), item.preprocessor, share, copied]
            row.append("-" if number else last_change)
            if served is not None:
                told = served.get(model)
                state = told.releases.get(name) if told else None
                row += [_share(told.traffic, name) if told else "-", str(state or "not served")]
            yield row


def _last_change(folder: Path) -> str:
    if not (changes := history.read(folder)):
        return "-"
    last = changes[-1]
    return f"{last.time:%Y-%m-%d %H:%M:%S}Z {last.action} by {last.who}"


def _share(weights: Mapping[str, int], name: str) -> str:
    total = sum(weights.values())
    return f"{100 * weights.get(name, 0) / total:.4g}%" if total else "-"
