"""What the tests of the committed artefacts share: a measurement in the models' environment."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.support.stack import ROOT

PYTHON = ROOT / ".venv-models" / "bin" / "python"


def measure(program: str, *arguments: str | Path, seconds: float) -> dict[str, Any]:
    """Run a program with the models' packages, for so long at most; return the JSON it prints."""
    command = [PYTHON, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result
