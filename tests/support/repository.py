"""Copies of the model repository that a test may change."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

from gateway.releases import lock, manifest
from tests.support.stack import ROOT

RELEASE = '[releases.{}]\nmodel_version = 1\npreprocessor = "digits-preprocessor=={}.0.0"\n\n'
DIGITS = f"{RELEASE.format(1, 1)}{RELEASE.format(2, 2)}[traffic]\n1 = 100\n"


def declared(folder: Path) -> Path:
    """Declare two models, without files of their own, in `folder`; `digits` has two releases."""
    tumor = RELEASE.format(1, 1) + "[traffic]\n1 = 1\n"
    for model, text in {"digits": DIGITS, "tumor": tumor}.items():
        (folder / model).mkdir(parents=True)
        (folder / model / manifest.FILE).write_text(text)
    return folder


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


def renamed(model: str, folder: Path) -> Path:
    """Copy a model to `folder` under that folder's name, and lock its files as they are there."""
    copied(folder.parent / ".original", [model])
    shutil.move(folder.parent / ".original" / model, folder)
    (folder.parent / ".original").rmdir()
    config = folder / lock.CONFIG
    config.write_text(config.read_text().replace(f'name: "{model}"', f'name: "{folder.name}"', 1))
    found = lock.read(folder)
    assert found
    locked = {
        name: msgspec.structs.replace(
            release, model=lock.digest_model(folder, release.model_version)
        )
        for name, release in found.releases.items()
    }
    lock.write(folder, lock.Lock(locked))
    return folder


def second_release(folder: Path) -> None:
    """Declare, and lock, a model's release 1 once more as release 2, without traffic."""
    for name in (manifest.FILE, lock.FILE):
        text = (folder / name).read_text()
        first = re.search(r"(?ms)^\[releases\.1\].*?(?=^\[traffic\]|\Z)", text)
        assert first
        (folder / name).write_text(first[0].replace("releases.1", "releases.2") + "\n" + text)


def _copy(source: str, target: str) -> None:
    if Path(source).stat().st_size > 4 << 20:
        Path(target).hardlink_to(source)
    else:
        shutil.copy2(source, target)
