"""What a tritonserver process of the embedded Triton needs to start.

`embedded` runs and supervises the process; this module knows the wheel: it finds Triton in the
models' environment, lays out the working folder, and makes the command and its environment.
"""

import asyncio
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

EXIT_TIMEOUT_S = 10
MINIMUM_GLIBC = (2, 35)
LOG_NAME = "triton.log"
LOG_ROTATED_AT = 8 * 2**20
LOG_TAIL_LINES = 15
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lives

_PROBE = """
import importlib.util, json, os, sys, sysconfig
found = importlib.util.find_spec("pytriton")
minor = "%d.%d" % sys.version_info[:2]
folders = [sysconfig.get_config_var("LIBDIR") or "", os.path.join(sys.base_prefix, "lib")]
libraries = [os.path.join(folder, "libpython" + minor + ".so.1.0") for folder in folders]
print(json.dumps({
    "missing": [n for n in ("numpy", "onnxruntime") if not importlib.util.find_spec(n)],
    "pytriton": found and os.path.dirname(found.origin),
    "minor": minor,
    "glibc": "CS_GNU_LIBC_VERSION" in os.confstr_names and os.confstr("CS_GNU_LIBC_VERSION") or "",
    "libpython": next((path for path in libraries if os.path.exists(path)), None),
}))
"""
# Becomes tritonserver. The kernel kills it when its parent dies, however that dies; the second line
# is for a parent that died before the first.
_EXEC = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
os.getppid() == int(sys.argv[1]) or sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


class EmbeddedTritonError(RuntimeError):
    """The embedded Triton cannot start or does not answer right; the text says what to do."""


@dataclass(frozen=True, slots=True)
class EmbeddedOptions:
    """What an embedded Triton is made of; a port of 0 means a free one, kept over restarts."""

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
        """Names this Triton's shared memory and server: one for each working folder."""
        folder = str(self.run_dir.resolve()).encode()
        return f"gateway-{hashlib.blake2s(folder, digest_size=6).hexdigest()}-"


@dataclass(frozen=True, slots=True)
class Installation:
    """Where the wheel's parts lie."""

    tritonserver: Path
    libraries: Path
    stub: Path
    libpython: Path | None

    @classmethod
    async def find(cls, python: Path) -> "Installation":
        """Ask the environment's interpreter; raises EmbeddedTritonError for one that cannot do."""
        code, output = await _run([str(python), "-c", _PROBE])
        if code != 0:
            why = _last_line(output)
            raise EmbeddedTritonError(f"{python} cannot run: {why}; `make install` creates it")
        return cls.from_probe(python, json.loads(_last_line(output)))

    @classmethod
    def from_probe(cls, python: Path, found: Mapping[str, Any]) -> "Installation":
        """Judge what the probe printed."""
        missing = ["nvidia-pytriton"] * (not found["pytriton"]) + found["missing"]
        if missing:
            names = ", ".join(missing)
            raise EmbeddedTritonError(f"{python} has no {names}; `make install` adds them")
        version = found["glibc"].removeprefix("glibc ")
        glibc = tuple(int(part) for part in version.split(".") if part)
        if glibc < MINIMUM_GLIBC:
            raise EmbeddedTritonError(
                f"Triton's wheel needs glibc {MINIMUM_GLIBC[0]}.{MINIMUM_GLIBC[1]} (Debian 12, "
                f"Ubuntu 22.04), this system has {found['glibc'] or 'another C library'}"
            )
        package = Path(found["pytriton"])
        stub = package / "tritonserver/python_backend_stubs" / found["minor"]
        if not stub.is_dir():
            have = sorted((folder.name for folder in stub.parent.iterdir()), key=len)
            raise EmbeddedTritonError(
                f"Triton's wheel has no stub for Python {found['minor']} ({python}); it has "
                f"{', '.join(have)}"
            )
        libraries = package.parent / "nvidia_pytriton.libs"
        libpython = Path(found["libpython"]) if found["libpython"] else None
        return cls(package / "tritonserver", libraries, stub, libpython)

    async def check(self, environment: Mapping[str, str]) -> None:
        """Start the stub once without arguments: does the dynamic linker find all it needs?"""
        _, output = await _run([str(self.stub / "triton_python_backend_stub")], environment)
        if "error while loading" in output or "not found" in output:
            raise EmbeddedTritonError(
                f"Triton's Python stub cannot start: {_last_line(output)} (libpython comes with a "
                "Python built with --enable-shared, or with Debian's libpython3 packages)"
            )


def lock(options: EmbeddedOptions) -> IO[bytes]:
    """Hold the working folder: two Tritons in one would remove each other's shared memory."""
    if not options.repository.is_dir():
        raise EmbeddedTritonError(f"the model repository {options.repository} is not a folder")
    options.run_dir.mkdir(parents=True, exist_ok=True)
    handle = (options.run_dir / "lock").open("wb")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.close()
        raise EmbeddedTritonError(
            f"another embedded Triton works in {options.run_dir}; stop it or choose another folder"
        ) from error
    return handle


def lay_out(options: EmbeddedOptions, installation: Installation) -> IO[bytes]:
    """Put everything into the working folder and open the log.

    Triton runs there with relative paths: it hands the stub's command line to a shell unquoted, so
    a space in any path would break it.
    """
    run_dir = options.run_dir
    backends, libraries = run_dir / "backends", run_dir / "lib"
    for folder in (backends, libraries):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    (backends / "python").mkdir()
    for folder in (installation.tritonserver / "backends/python", installation.stub):
        for part in folder.iterdir():  # copies: Triton refuses a library that leads elsewhere
            shutil.copy(part, backends / "python")
    for backend in options.backends.iterdir():
        (backends / backend.name).symlink_to(backend.absolute())
    if installation.libpython:
        (libraries / installation.libpython.name).symlink_to(installation.libpython)
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
    """The command line, for the working folder as current folder."""
    settings = {
        "id": options.identity,
        "model-repository": "models",
        "model-control-mode": "explicit",
        "backend-directory": "backends",
        "cache-directory": installation.tritonserver / "caches",
        "backend-config=python,shm-region-prefix-name": options.identity,
        "backend-config=python,stub-timeout-seconds": 120,  # torch's import on a busy machine
        "model-load-thread-count": 8,  # a load mostly waits: Triton sleeps a second in each
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
    """The process environment: the models' Python first, no Python settings of the gateway's."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    libraries = [
        str(installation.libraries),
        str((options.run_dir / "lib").absolute()),
        inherited.get("LD_LIBRARY_PATH", ""),
    ]
    return {
        **inherited,
        "PATH": f"{options.python.absolute().parent}:{inherited.get('PATH', os.defpath)}",
        "LD_LIBRARY_PATH": ":".join(filter(None, libraries)),
        "GATEWAY_TRITON_THREADS": str(options.threads),
        "OMP_NUM_THREADS": str(options.threads),
        "OPENBLAS_NUM_THREADS": "1",  # numpy's pool, made at import in every stub, never used
    }


def remove_shared_memory(options: EmbeddedOptions) -> None:
    """Remove what a killed Triton of this working folder left behind."""
    for region in SHARED_MEMORY.glob(f"{options.identity}*"):
        region.unlink(missing_ok=True)


def log_tail(options: EmbeddedOptions) -> str:
    """The last lines of the log, for an error message."""
    log = options.run_dir / LOG_NAME
    with log.open("rb") as file:
        file.seek(max(log.stat().st_size - 8192, 0))
        lines = file.read().decode(errors="replace").splitlines()
    told = [line for line in lines if line.strip() and line[0] not in "+|"]  # no tables
    return "\n".join(told[-LOG_TAIL_LINES:])


async def _run(arguments: list[str], env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run a short command; an interpreter that is not there counts as a failed one."""
    try:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            env=env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except OSError as error:
        return 127, error.strerror or str(error)
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode(errors="replace")


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no output"])[-1]
