"""The layout of a Triton from the PyPI wheel: Python backend, our backends, libraries, options.

The launcher creates it in the gateway's working folder; images contain it: `python -m
gateway.triton.layout PYTHON BACKENDS FOLDER` copies everything below FOLDER and writes
FOLDER/bin/tritonserver, which takes the same options as the official container's `tritonserver`.
This module uses only the standard library: image builds run it without the gateway's packages.
"""

import asyncio
import json
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MINIMUM_GLIBC = (2, 35)
THREADS = "GATEWAY_TRITON_THREADS"

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


class EmbeddedTritonError(RuntimeError):
    """The embedded Triton cannot start or answers wrongly; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Installation:
    """Where the parts of the wheel are."""

    tritonserver: Path
    libraries: Path
    stub: Path
    libpython: Path | None

    @classmethod
    async def find(cls, python: Path) -> "Installation":
        """Ask the environment's interpreter; raises EmbeddedTritonError if it is unsuitable."""
        code, output = await _run([str(python), "-c", _PROBE])
        if code != 0:
            why = _last_line(output)
            raise EmbeddedTritonError(f"{python} cannot run: {why}; `make install` creates it")
        return cls.from_probe(python, json.loads(_last_line(output)))

    @classmethod
    def from_probe(cls, python: Path, found: Mapping[str, Any]) -> "Installation":
        """Evaluate the probe's output."""
        missing = ["nvidia-pytriton"] * (not found["pytriton"]) + found["missing"]
        if missing:
            names = ", ".join(missing)
            raise EmbeddedTritonError(f"{python} has no {names}; `make install` adds them")
        version = found["glibc"].removeprefix("glibc ")
        glibc = tuple(int(part) for part in version.split(".") if part)
        if glibc < MINIMUM_GLIBC:
            raise EmbeddedTritonError(
                f"Triton's wheel needs glibc {MINIMUM_GLIBC[0]}.{MINIMUM_GLIBC[1]} (Debian 12, "
                f"Ubuntu 22.04); this system has {found['glibc'] or 'another C library'}"
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
        """Run the stub once without arguments, to check that it finds its libraries."""
        _, output = await _run([str(self.stub / "triton_python_backend_stub")], environment)
        if "error while loading" in output or "not found" in output:
            raise EmbeddedTritonError(
                f"Triton's Python stub cannot start: {_last_line(output)} (libpython comes with a "
                "Python built with --enable-shared, or with Debian's libpython3 packages)"
            )


def populate(folder: Path, installation: Installation, backends: Path, *, copy: bool) -> None:
    """Create `backends` and `lib` in `folder` anew; our backends are copied or linked.

    Triton's own Python backend is always copied: Triton rejects a library that is a link.
    """
    ours, libraries = folder / "backends", folder / "lib"
    for made in (ours, libraries):
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
    (ours / "python").mkdir()
    for source in (installation.tritonserver / "backends/python", installation.stub):
        for part in source.iterdir():
            if part.is_file():  # compiling installers leave __pycache__ there
                shutil.copy(part, ours / "python")
    for backend in backends.iterdir():
        if copy:
            shutil.copytree(backend, ours / backend.name)
        else:
            (ours / backend.name).symlink_to(backend.absolute())
    if installation.libpython:
        (libraries / installation.libpython.name).symlink_to(installation.libpython)


def options(installation: Installation) -> dict[str, str]:
    """Return the options that go with this layout, relative to its folder."""
    return {
        "backend-directory": "backends",
        "cache-directory": str(installation.tritonserver / "caches"),
        "backend-config=python,stub-timeout-seconds": "120",  # torch's import on a busy machine
        "model-load-thread-count": "8",  # loads mostly wait: Triton sleeps for a second in each
    }


def environment(
    folder: Path,
    installation: Installation,
    python: Path,
    threads: str,
    inherited: Mapping[str, str],
) -> dict[str, str]:
    """Return the variables to add to `inherited`: the models' Python comes first."""
    libraries = (str(installation.libraries), str(folder / "lib"))
    return {
        "PATH": f"{python.parent}:{inherited.get('PATH', os.defpath)}",
        "LD_LIBRARY_PATH": ":".join(filter(None, (*libraries, inherited.get("LD_LIBRARY_PATH")))),
        THREADS: threads,
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": "1",  # numpy's pool: created at import in every stub, never used
    }


def start_script(folder: Path, installation: Installation, python: Path) -> str:
    """Return a shell script that becomes `tritonserver`, passing its options on."""
    quoted = {"PATH": "$PATH", "LD_LIBRARY_PATH": ""}
    variables = environment(folder, installation, python, f"${{{THREADS}:-1}}", quoted)
    flags = [shlex.quote(f"--{key}={value}") for key, value in options(installation).items()]
    return "\n".join(
        [
            "#!/bin/sh",
            f"cd {shlex.quote(str(folder))} || exit 1",
            *(f'export {name}="{value}"' for name, value in variables.items()),
            f'exec {installation.tritonserver / "bin/tritonserver"} {" ".join(flags)} "$@"',
            "",
        ]
    )


async def _run(arguments: list[str], env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run a short command; a missing interpreter counts as a failure."""
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


async def _lay_out(python: Path, backends: Path, folder: Path) -> None:
    installation = await Installation.find(python)
    populate(folder, installation, backends, copy=True)
    await installation.check(
        os.environ | environment(folder, installation, python, "1", os.environ)
    )
    script = folder / "bin/tritonserver"
    script.parent.mkdir(exist_ok=True)
    script.write_text(start_script(folder, installation, python))
    script.chmod(0o755)


if __name__ == "__main__":
    try:
        asyncio.run(_lay_out(*(Path(argument).absolute() for argument in sys.argv[1:4])))
    except (EmbeddedTritonError, TypeError) as problem:
        sys.exit(str(problem))
