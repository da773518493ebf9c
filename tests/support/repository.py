"""Copies of the model repository that a test may change."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.support.stack import ROOT


def copied(folder: Path, models: Sequence[str]) -> Path:
    """Copy these models to `folder`; large model files are linked, not copied."""
    for model in models:
        shutil.copytree(
            ROOT / "model_repository" / model,
            folder / model,
            copy_function=_copy,
            ignore=shutil.ignore_patterns("__pycache__", "releases.history"),
        )
    return folder


def _copy(source: str, target: str) -> None:
    if Path(source).stat().st_size > 4 << 20:
        Path(target).hardlink_to(source)
    else:
        shutil.copy2(source, target)
