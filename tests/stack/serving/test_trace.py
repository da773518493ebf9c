"""A warm single request stays easy to follow: bounds on what `tests/support/trace.py` counts."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.support.stack import ROOT


def test_a_request_touches_few_files_and_functions() -> None:
    command = [sys.executable, "-m", "tests.support.trace", "tumor"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    files, functions, switches = map(int, re.findall(r"\d+", done.stdout.splitlines()[-1]))
    assert 10 < files <= 18
    assert 50 < functions <= 104  # 116 before a request had a page of its own
    assert 40 < switches <= 82  # 107
