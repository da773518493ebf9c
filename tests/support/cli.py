"""Runs a command as an operator would."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping

from tests.support.stack import GATEWAY, ROOT


def gateway(
    *arguments: str, settings: Mapping[str, object] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `gateway …` to its end, with these settings in its environment."""
    given = {f"GATEWAY_{name.upper()}": str(value) for name, value in (settings or {}).items()}
    return subprocess.run(
        [GATEWAY, *arguments],
        cwd=ROOT,
        env=os.environ | given,
        capture_output=True,
        text=True,
        check=False,
    )
