"""Files that several processes share: one holder of a lock at a time, and never half a file."""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

#: Seconds to wait for another editor of the same file.
PATIENCE = 10.0


class Busy(Exception):
    """Another process holds the lock."""


def hold(path: Path) -> IO[bytes]:
    """Lock a file that exists only to be locked; closing it lets go. Raises Busy, OSError."""
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise (Busy(path) if isinstance(error, BlockingIOError) else error) from None
    return file


@contextmanager
def waiting(path: Path) -> Iterator[None]:
    """Hold a file that exists only to be locked, once its holder lets go. Raises OSError."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other editors of the file out for the length of the block. Raises Busy, OSError.

    The lock is on the file itself, which editors replace: it counts only while the locked file is
    the one in place.
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


def replace(path: Path, content: bytes) -> None:
    """Replace a file's content at once: readers see the old one or the new one. Raises OSError."""
    partial = _beside(path)
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def prepared(target: Path, content: bytes, like: Path) -> Iterator[Path]:
    """Write a file that is to replace `target`, with mode and owner of `like`, and make it last.

    It is locked like its target until the block ends: an editor that finds it in place waits.
    """
    partial = _beside(target)
    try:
        with partial.open("xb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            found = like.stat()
            os.fchmod(file.fileno(), stat.S_IMODE(found.st_mode))
            with suppress(PermissionError):
                os.fchown(file.fileno(), found.st_uid, found.st_gid)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            yield partial
            _sync(target.parent)
    finally:
        partial.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    """Return a name in the same folder that nobody else takes.

    Containers that share a folder may have the same process id: that would not do.
    """
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


def _sync(folder: Path) -> None:
    """Make renames in a folder last."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
