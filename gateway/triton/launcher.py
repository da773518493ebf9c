"""What a tritonserver process of the embedded Triton needs to start.

`embedded` runs and supervises the process, `layout` knows the wheel; this module prepares the
working folder, the command and its environment.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from gateway.system.files import Busy, hold
from gateway.triton import layout
from gateway.triton.layout import EmbeddedTritonError, Installation

EXIT_TIMEOUT_S = 10
LOG_NAME = "triton.log"
LOG_ROTATED_AT = 8 * 2**20
LOG_TAIL_LINES = 15
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lives

# Becomes tritonserver. The kernel kills it when its parent dies, however that happens; the second
# line covers a parent that died before the first line.
_EXEC = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
os.getppid() == int(sys.argv[1]) or sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True, slots=True)
class EmbeddedOptions:
    """The configuration of an embedded Triton; port 0 means a free one, kept across restarts."""

    repository: Path
    python: Path
    backends: Path
    run_dir: Path
    canary: Path
    grpc_port: int = 0
    http_port: int = 0
    metrics_port: int = 0
    threads: int = 1

    @property
    def identity(self) -> str:
        """The name of this Triton's server and shared memory, unique per working folder."""
        folder = str(self.run_dir.resolve()).encode()
        return f"gateway-{hashlib.blake2s(folder, digest_size=6).hexdigest()}-"


def lock(options: EmbeddedOptions) -> IO[bytes]:
    """Lock the working folder: two Tritons in it would remove each other's shared memory."""
    if not options.repository.is_dir():
        raise EmbeddedTritonError(f"the model repository {options.repository} is not a folder")
    options.run_dir.mkdir(parents=True, exist_ok=True)
    try:
        return hold(options.run_dir / "lock")
    except Busy as error:
        raise EmbeddedTritonError(
            f"another embedded Triton uses {options.run_dir}: stop it, or choose another folder"
        ) from error


def lay_out(options: EmbeddedOptions, installation: Installation) -> IO[bytes]:
    """Prepare the working folder and open the log.

    Triton runs there with relative paths: it passes the stub's command line to a shell unquoted, so
    that a space in a path would break it.
    """
    run_dir = options.run_dir
    layout.populate(run_dir, installation, options.backends, copy=False)
    models = run_dir / "models"
    models.unlink(missing_ok=True)
    models.symlink_to(options.repository.absolute())
    log = run_dir / LOG_NAME
    if log.exists() and log.stat().st_size > LOG_ROTATED_AT:
        log.replace(log.with_suffix(".log.1"))
    return log.open("ab")


def command(
    options: EmbeddedOptions, installation: Installation, ports: tuple[int, int, int]
) -> list[str]:
    """Return the command line, to be run in the working folder."""
    settings = {
        "id": options.identity,
        "model-repository": "models",
        "model-control-mode": "explicit",
        **layout.options(installation),
        "backend-config=python,shm-region-prefix-name": options.identity,
        "exit-timeout-secs": EXIT_TIMEOUT_S,
        "grpc-address": "127.0.0.1",
        "grpc-port": ports[0],
        "http-address": "127.0.0.1",
        "http-port": ports[1],
        "metrics-address": "127.0.0.1",
        "metrics-port": ports[2],
    }
    start = [str(options.python.absolute()), "-ISc", _EXEC, str(os.getpid())]
    server = str(installation.tritonserver / "bin/tritonserver")
    return [*start, server, *(f"--{key}={value}" for key, value in settings.items())]


def environment(options: EmbeddedOptions, installation: Installation) -> dict[str, str]:
    """Return the process environment: the models' Python first, without the gateway's PYTHON*."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    python, threads = options.python.absolute(), str(options.threads)
    return inherited | layout.environment(
        options.run_dir.absolute(), installation, python, threads, inherited
    )


def remove_shared_memory(options: EmbeddedOptions) -> None:
    """Remove what a killed Triton left behind for this working folder."""
    for region in SHARED_MEMORY.glob(f"{options.identity}*"):
        region.unlink(missing_ok=True)


def log_tail(options: EmbeddedOptions) -> str:
    """Return the last lines of the log, for an error message."""
    log = options.run_dir / LOG_NAME
    with log.open("rb") as file:
        file.seek(max(log.stat().st_size - 8192, 0))
        lines = file.read().decode(errors="replace").splitlines()
    told = [line for line in lines if line.strip() and line[0] not in "+|"]  # no tables
    return "\n".join(told[-LOG_TAIL_LINES:])
