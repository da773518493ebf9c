"""The project, unlocked and locked, made once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from gateway_preprocessor import wire

from gateway.building.locking import Locking
from tests.slow.building.project import (
    CODE,
    GOLDENS,
    MODEL,
    MODULE,
    PROJECT,
    RELEASES,
    Project,
    release_of,
    write,
)
from tests.support.stack import ROOT


@pytest.fixture(scope="session")
def unlocked(tmp_path_factory: pytest.TempPathFactory) -> Project:
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "preprocessors/contract", root / "preprocessors/contract")
    package = f"{MODULE.removesuffix('__init__.py')}"
    write(root, {"preprocessors/echo/pyproject.toml": PROJECT, MODULE: CODE})
    write(root, {f"{package}goldens.json": GOLDENS, f"{MODEL}/releases.toml": RELEASES})
    write(root, {f"{MODEL}/config.pbtxt": "name: 'echo'", f"{MODEL}/1/model.onnx": "graph"})
    return Project(root, tmp_path_factory.mktemp("environments"))


@pytest.fixture(scope="session")
async def original(unlocked: Project) -> Project:
    assert (await unlocked.locked())[-1] == "locked echo, release 1: echo-preprocessor==1.0.0"
    return unlocked


@pytest.fixture
def project(original: Project, tmp_path: Path) -> Project:
    """A copy of the locked project, to be spoilt."""
    shutil.copytree(original.root, tmp_path / "copy")
    return Project(tmp_path / "copy", original.shared)


@pytest.fixture(scope="session")
async def identity(original: Project) -> wire.Identity:
    return await Locking(original.settings, print)._identity(release_of(original))
