"""What the figures were measured on: no host name and no path."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

import psutil
from tritonclient.grpc import InferenceServerClient

from loadtests.load.service import ROOT

PACKAGES = ("tornado", "uvloop", "tritonclient", "grpcio", "msgspec", "numpy")
#: What runs the models, in an environment of its own.
MODELS_PYTHON = ".venv-models/bin/python"
MODELS_PACKAGES = (
    "nvidia-pytriton",
    "onnxruntime",
    "torch",
    "tokenizers",
    "transformers",
    "flask",
    "gunicorn",
)
_TELL = """
import json, sys
from importlib import metadata
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        continue
print(json.dumps(found))
"""


def facts(triton: str, versions: dict[str, str]) -> dict[str, str]:
    """Describe the machine and the versions; `triton` is its gRPC endpoint."""
    client = InferenceServerClient(triton)
    server = client.get_server_metadata()
    client.close()  # its threads would be in the way of every process that is started later
    return hardware() | {
        "Triton": f"{server.version}, embedded",
        "versions": ", ".join(f"{name} {version}" for name, version in (own() | versions).items()),
        "source": _commit(),
    }


def hardware() -> dict[str, str]:
    """Describe the machine, and nothing that tells whose it is."""
    return {
        "CPU": f"{_cpu()}, {len(os.sched_getaffinity(0))} cores usable",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
    }


def own() -> dict[str, str]:
    """Return the versions of what the gateway runs on."""
    return {name: metadata.version(name) for name in PACKAGES}


def versions() -> dict[str, str]:
    """Return the versions of all that is compared, and of the source."""
    done = subprocess.run(  # noqa: S603
        [MODELS_PYTHON, "-c", _TELL, *MODELS_PACKAGES],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    models: dict[str, str] = json.loads(done.stdout)
    return own() | models | {"source": _commit()}


def _cpu() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"],  # noqa: S607
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown: no git here"
    return done.stdout.strip()
