"""Files that several processes change: one editor at a time, and never half a file."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: Seconds to wait for another editor of the same file.
PATIENCE = 10.0


class Busy(Exception):
    """Somebody else has been editing the file for too long."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other editors of the file out for the length of the block. Raises Busy, OSError.

    The lock is on the file itself, which editors replace: so it counts only while the file
    locked is the file in place.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        with path.open("r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Busy(path) from None
                time.sleep(0.01)
                continue
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                yield
                return


@contextmanager
def prepared(target: Path, content: bytes, like: Path) -> Iterator[Path]:
    """Write a file that is to replace `target`, with mode and owner of `like`.

    It is locked like its target until the block ends: who finds it in place waits.
    """
    number, name = tempfile.mkstemp(prefix=".releases.", dir=target.parent)
    try:
        with os.fdopen(number, "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            found = like.stat()
            os.fchmod(number, stat.S_IMODE(found.st_mode))
            with suppress(PermissionError):
                os.fchown(number, found.st_uid, found.st_gid)
            file.write(content)
            file.flush()
            os.fsync(number)
            yield Path(name)
            _sync(target.parent)
    finally:
        Path(name).unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Make renames in a folder last."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
