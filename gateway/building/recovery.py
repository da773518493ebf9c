"""Gets back the wheels that locks name: from git's history or from an index, by digest alone."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from gateway.building.custody import LockedWheel
from gateway.building.history import History, HistoryUnavailable
from gateway.building.wheels import build_one
from gateway.preprocessing import wheelhouse as wheelhouses
from gateway.preprocessing.environments import EnvironmentFailure
from gateway.preprocessing.wheelhouse import DownloadFailure
from gateway.releases.lock import LockError, digest_bytes
from gateway.system.files import replace


def recover(
    missing: list[LockedWheel],
    preprocessors: Path,
    wheelhouse: Path,
    say: Callable[[str], None],
    *,
    offline: bool = False,
) -> None:
    """Put every missing wheel into the wheelhouse.

    Each state of the sources that had the wheel's version is built, newest first, until one gives
    the locked bytes; then an index is asked. Raises LockError naming each wheel that cannot be had,
    and what was tried.
    """
    if not missing:
        return  # nothing to read the history for
    history, unknown = None, ""
    try:
        history = History(preprocessors)
    except HistoryUnavailable as error:
        unknown = str(error)
    problems = []
    for wheel in missing:
        tried = []
        if history is None:
            tried.append(f"there is no history of {preprocessors} ({unknown})")
        elif _built(wheel, history, wheelhouse, tried, offline=offline):
            say(f"rebuilt {wheel.name}=={wheel.version} {wheel.digest} from history")
            continue
        if offline:
            tried.append("no index may be asked (offline)")
        elif _downloaded(wheel, wheelhouse, tried):
            say(f"downloaded {wheel.name}=={wheel.version} {wheel.digest}")
            continue
        problems.append(f"{wheel}: the locked wheel cannot be had: {'; '.join(tried)}")
    if problems:
        raise LockError("\n".join(problems))


def _built(
    wheel: LockedWheel, history: History, wheelhouse: Path, tried: list[str], *, offline: bool
) -> bool:
    states, failed = history.states(wheel.name, wheel.version), ""
    for state in states:
        with tempfile.TemporaryDirectory() as folder:
            try:
                sources = history.extract(state, Path(folder))
                name, content = build_one(sources, wheelhouse, offline=offline)
            except (EnvironmentFailure, HistoryUnavailable) as error:
                failed = f" (one did not build: {str(error).splitlines()[-1]})"
                continue
        if digest_bytes(content) == wheel.digest:
            replace(wheelhouse / name, content)
            return True
    tried.append(f"none of {len(states)} states of its sources in the history gives it{failed}")
    if history.shallow:
        tried.append("this clone is shallow: `git fetch --unshallow` brings the rest")
    return False


def _downloaded(wheel: LockedWheel, wheelhouse: Path, tried: list[str]) -> bool:
    line = f"{wheel.name}=={wheel.version} --hash={wheel.digest}"
    try:
        wheelhouses.complete(wheelhouse, [line])
    except DownloadFailure as error:
        tried.append(f"no index has it ({str(error).splitlines()[-1]})")
        return False
    return True
