"""Runs a program of the repository that starts servers of its own, and ends with them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil

from tests.support.stack import ROOT

PATIENCE = 580


def run(module: str, *options: str) -> str:
    """Run a module until it ends; returns what it printed. Fails where it did."""
    with subprocess.Popen(
        [sys.executable, "-m", module, *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            printed, _ = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.terminate()  # not killed: it ends what it has started
            printed, _ = process.communicate()
    assert process.returncode == 0, printed
    return printed


def left_in(folder: Path) -> list[psutil.Process]:
    """Return processes that still run with something of a folder."""
    processes = psutil.process_iter(["cmdline"])
    return [each for each in processes if str(folder) in " ".join(each.info["cmdline"] or ())]
