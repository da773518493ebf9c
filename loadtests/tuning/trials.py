"""A temporary repository with every candidate in it, so that one Triton serves them side by side.

A placement is a model of its own there, a bound of rows a release of it. What is idle takes
memory and no time, so candidates can be measured in turns, without a restart between them.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import tomlkit

from gateway.releases import lock, manifest
from gateway.releases.lock import BYTECODE, Lock, LockedRelease
from gateway.releases.manifest import Release
from loadtests.tuning import placement
from loadtests.tuning.candidates import Candidate, TuningError
from loadtests.tuning.placement import Placed


class Subject(NamedTuple):
    """The release that is tuned."""

    placed: Placed
    name: str
    release: Release
    locked: LockedRelease


def subject(repository: Path, model: str, name: str | None) -> Subject:
    """Read the release to tune; None is the one with most traffic.

    Raises TuningError, ManifestError, LockError, ConfigError.
    """
    folder = repository / model
    declared = manifest.read(repository, (model,))[model]
    name = name or max(declared.traffic, key=declared.traffic.__getitem__)
    if name not in declared.releases:
        raise TuningError(
            f"no release {name!r} is declared; there is {', '.join(declared.releases)}"
        )
    found = lock.read(folder)
    if found is None or name not in found.releases:
        raise TuningError(f"{model}, release {name} is not locked: `gateway lock {model}` first")
    return Subject(placement.read(folder), name, declared.releases[name], found.releases[name])


def names(candidate: Candidate) -> tuple[str, str]:
    """Return the model and the release that a candidate has in the temporary repository."""
    instances, threads, rows, delay = candidate
    return f"i{instances}t{threads}d{delay}", f"rows{rows}"


def build(folder: Path, subject: Subject, candidates: Sequence[Candidate]) -> None:
    """Write the repository. Large files are linked where the file system can."""
    source, version = subject.placed.path.parent, subject.release.model_version
    for model in {names(candidate)[0]: None for candidate in candidates}:
        ours = [candidate for candidate in candidates if names(candidate)[0] == model]
        target = folder / model
        shutil.copytree(
            source / str(version),
            target / str(version),
            copy_function=_link,
            ignore=shutil.ignore_patterns(BYTECODE),
        )
        text = placement.configured(subject.placed, ours[0].placement, model)
        (target / placement.FILE).write_text(text, encoding="utf-8")
        releases = {
            names(candidate)[1]: _bounded(subject.release, candidate.rows) for candidate in ours
        }
        declared = {"releases": releases, "traffic": dict.fromkeys(releases, 1)}
        (target / manifest.FILE).write_text(tomlkit.dumps(declared), encoding="utf-8")
        files = lock.digest_model(target, version)
        locked = msgspec.structs.replace(subject.locked, model=files)
        lock.write(target, Lock(dict.fromkeys(releases, locked)))


def _bounded(release: Release, rows: int) -> dict[str, Any]:
    """Return the declaration of a release with another bound; TOML knows no null."""
    batching = dataclasses.replace(release.batching, max_rows=rows)
    plain = dataclasses.asdict(dataclasses.replace(release, batching=batching, load=True))
    return {key: value for key, value in plain.items() if value is not None}


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
