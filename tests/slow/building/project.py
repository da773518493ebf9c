"""A small project of its own: one model, one preprocessor, to be locked."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from gateway.building.locking import Locking
from gateway.building.relocking import Verify
from gateway.releases import lock
from gateway.releases.lock import Lock, LockedRelease
from gateway.settings import Settings

PROJECT = """
[build-system]
requires = ["hatchling==1.33.0", "packaging==26.3"]
build-backend = "hatchling.build"

[project]
name = "echo-preprocessor"
version = "1.0.0"
requires-python = ">=3.10"
dependencies = ["gateway-preprocessor>=1,<2", "six>=1.15"]

[project.entry-points."gateway.preprocessors"]
echo = "echo_preprocessor:Echo"

[tool.hatch.build.targets.wheel]
packages = ["src/echo_preprocessor"]
"""
CODE = '''
import numpy as np
from gateway_preprocessor import Example, NoParameters, Prepared, Preprocessor, TensorSpec


class Echo(Preprocessor[float, NoParameters, float]):
    """A number in, a number out."""

    input_type = float
    output_type = float
    tensors = (TensorSpec("x", "float32", (1,)),)
    outputs = (TensorSpec("y__0", "float32", (1,)),)
    examples = (Example(1.0),)

    def preprocess(self, instances, parameters):
        return [Prepared({"x": np.array([value], np.float32)}) for value in instances]

    def postprocess(self, rows, contexts):
        return [float(row["y__0"][0]) for row in rows]
'''
GOLDENS = """[{"name": "one", "reference": "by hand", "input": 1.0, "output": 1.0,
"tensors": {"x": {"dtype": "float32", "shape": [1], "data": [1.0]}}}]"""
RELEASES = """[releases.1]
model_version = 1
preprocessor = "echo-preprocessor==1.0.0"

[traffic]
1 = 100
"""
TWO = RELEASES + '\n[releases."2.0-rc"]\nmodel_version = 2\npreprocessor = "echo-preprocessor"\n'
MODULE = "preprocessors/echo/src/echo_preprocessor/__init__.py"
MODEL = "model_repository/echo"


async def verified(model: str, releases: Collection[str], new: Lock) -> list[str]:
    """Find no fault: the project's model is no real one. `test_relock_live.py` verifies."""
    return []


class Project(NamedTuple):
    """A repository with one model, `echo`, and the packages it needs."""

    root: Path
    shared: Path

    @property
    def settings(self) -> Settings:
        return Settings(
            repository=self.root / "model_repository",
            preprocessors=self.root / "preprocessors",
            wheelhouse=self.root / "wheelhouse",
            environments=self.shared,
        )

    @property
    def lock(self) -> Path:
        return self.root / MODEL / lock.FILE

    async def locked(self, *relock: str, verify: Verify = verified) -> list[str]:
        said: list[str] = []
        await Locking(self.settings, said.append, verify).lock((), relock)
        return said

    async def check(self) -> list[str]:
        return await Locking(self.settings, print).check(())


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def release_of(project: Project, name: str = "1") -> LockedRelease:
    found = lock.read(project.root / MODEL)
    assert found
    return found.releases[name]


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
