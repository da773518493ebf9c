"""Writes a candidate into the model's own files, keeping their comments."""

from __future__ import annotations

from pathlib import Path

import msgspec
import tomlkit

from gateway.releases import lock, manifest
from gateway.system.files import Busy, locked, prepared
from gateway.triton import placement
from gateway.tuning.candidates import Candidate, TuningError
from gateway.tuning.trials import Subject


def write(subject: Subject, chosen: Candidate) -> list[str]:
    """Edit `config.pbtxt` and `releases.toml`; returns what changed and what is to do now.

    Raises TuningError, ConfigError, ManifestError, OSError; then nothing was changed, or
    `config.pbtxt` alone.
    """
    folder, told = subject.placed.path.parent, []
    config = placement.written(subject.placed, chosen.placement)
    path = folder / manifest.FILE
    before = path.read_text(encoding="utf-8")
    declared = bounded(path, before, subject.name, chosen.rows)
    if config != subject.placed.text:
        _replace(subject.placed.path, subject.placed.text, config)
        told.append(f"wrote {subject.placed.path}: comments are as they were, read them again")
        found = lock.read(folder)
        names = " ".join(f"--relock {name}" for name in found.releases) if found else ""
        told.append(
            f"the lock holds the old file, so no gateway would load the model now: run"
            f" `gateway lock {folder.name} {names}`, while nobody serves from this repository"
        )
    if declared != before:
        _replace(path, before, declared)
        told.append(f"wrote {path}: gateways that serve it follow at once")
    return told or ["nothing to write: the files say so already"]


def bounded(path: Path, text: str, release: str, rows: int) -> str:
    """Return the text of a `releases.toml` with another `max_rows` for one release.

    Raises ManifestError for a text that is none, TuningError for one that cannot be edited.
    """
    declared = manifest.decode(path, text)
    now = declared.releases[release]
    if now.batching.max_rows == rows:
        return text
    tree = tomlkit.parse(text)
    table = tree["releases"][release]
    table.setdefault("batching", tomlkit.inline_table())["max_rows"] = rows
    edited = manifest.decode(path, tree.as_string())
    batching = msgspec.structs.replace(now.batching, max_rows=rows)
    wanted = {**declared.releases, release: msgspec.structs.replace(now, batching=batching)}
    if edited != msgspec.structs.replace(declared, releases=wanted):
        raise TuningError(f"{path}: its form is too unusual to be edited; edit it by hand")
    return tree.as_string()


def _replace(path: Path, before: str, after: str) -> None:
    path = path.resolve()
    try:
        with locked(path):
            if path.read_text(encoding="utf-8") != before:
                raise TuningError(f"{path} was edited meanwhile: try again")
            with prepared(path, after.encode(), path) as new:
                new.replace(path)
    except Busy:
        raise TuningError(f"{path} is being edited by somebody else: try again") from None
