"""What is served: MiniLM with its real weights, or so many generated text classifiers.

Both are made by `loadtests.zoo`, once: what is there already is not made again.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
import tomlkit

from loadtests.load.service import ROOT
from loadtests.load.stack import copy

PYTHON = ".venv-models/bin/python"
#: The release that is compared: today's preprocessor with the original weights.
RELEASE = "2"


class Reference(msgspec.Struct, frozen=True):
    """Some texts and what a model must answer to them, one unpadded text at a time."""

    inputs: list[str]
    outputs: list[list[float]]


class Models(NamedTuple):
    """A folder with `models.json`; for the gateway, `repository` is one of Triton's."""

    folder: Path
    names: list[str]
    answers: Literal["embedding", "scores"]
    references: dict[str, Reference]

    @property
    def random_weights(self) -> bool:
        """Whether their answers mean nothing."""
        return self.answers == "scores"


def minilm(folder: Path) -> Models:
    """Make MiniLM ready in `folder`, with a repository of one release for the gateway."""
    folder.mkdir(parents=True, exist_ok=True)
    _zoo("loadtests.zoo", folder, "--minilm", python=PYTHON)
    for model in ("minilm", "minilm_torchscript"):
        repository = folder / f"repository_{model}"
        if not repository.exists():
            copy([model], repository)
            _keep(repository / model / "releases.toml")
    return _read(folder, "embedding")


def generated(folder: Path, count: int, instances: int) -> Models:
    """Make `count` classifiers ready; `instances` of each run in the gateway's Triton."""
    folder.mkdir(parents=True, exist_ok=True)
    _zoo("loadtests.zoo", folder, "--count", str(count), python=PYTHON)
    _zoo("loadtests.zoo.repository", folder, "--instances", str(instances), python=sys.executable)
    return _read(folder, "scores")


def _zoo(module: str, folder: Path, *options: str, python: str) -> None:
    subprocess.run([python, "-m", module, str(folder), *options], cwd=ROOT, check=True)  # noqa: S603


def _keep(path: Path) -> None:
    """Keep one release of those declared, if it is there: the others are not compared."""
    declared = tomlkit.parse(path.read_text())
    releases = declared["releases"].unwrap()
    if RELEASE in releases:
        for name in releases.keys() - {RELEASE}:
            del declared["releases"][name]
        declared["traffic"] = {RELEASE: 100}
        path.write_text(tomlkit.dumps(declared))


def _read(folder: Path, answers: Literal["embedding", "scores"]) -> Models:
    found = msgspec.json.decode((folder / "reference.json").read_bytes(), type=dict[str, Reference])
    return Models(folder, sorted(found), answers, found)
