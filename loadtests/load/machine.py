"""What the figures were measured on: no host name and no path."""

from __future__ import annotations

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


def facts(triton: str, versions: dict[str, str]) -> dict[str, str]:
    """Describe the machine and the versions; `triton` is its gRPC endpoint."""
    client = InferenceServerClient(triton)
    server = client.get_server_metadata()
    client.close()  # its threads would be in the way of every process that is started later
    own = {name: metadata.version(name) for name in PACKAGES}
    return {
        "CPU": f"{_cpu()}, {len(os.sched_getaffinity(0))} cores usable",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "Triton": f"{server.version}, embedded",
        "versions": ", ".join(f"{name} {version}" for name, version in (own | versions).items()),
        "source": _commit(),
    }


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
