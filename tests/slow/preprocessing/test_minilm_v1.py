"""The 1.x line of minilm's preprocessor keeps the contract, in its own environment."""

from __future__ import annotations

import asyncio
import json
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from gateway_preprocessor import Payload, Prepared, Runner
from minilm_preprocessor import MiniLM
from packaging.version import Version

from gateway.building import wheels
from gateway.building.custody import Custody
from gateway.building.resolving import Own, resolve
from gateway.preprocessing.environments import EnvironmentFailure, Environments, run_uv
from gateway.settings import Settings
from tests.support.stack import ROOT

#: Runs in the environment: proves the contract and reports what the tests here compare.
PROGRAM = """
import json, sys
from importlib.metadata import version
from gateway_preprocessor import Payload, Runner
from gateway_preprocessor.testing import check
from minilm_preprocessor import MiniLM

proven = check(MiniLM)
texts = json.load(sys.stdin)
prepared = Runner(MiniLM()).prepare([Payload(json.dumps(text).encode()) for text in texts])
(refused,) = Runner(MiniLM()).prepare([Payload(b'""')])
print(json.dumps({
    "proven": proven,
    "ids": [item.tensors["input_ids"].tolist() for item in prepared],
    "refused": refused.problems,
    "versions": {name: version(name) for name in
                 ("minilm-preprocessor", "transformers", "tokenizers", "numpy")},
}))
"""
TEXTS = [
    *("A cat sits on the mat.", "Wie wird das Wetter morgen?", "naïve ÉCOLE, İstanbul", "今天天气"),
    *("Great 👍🏽 work! \u200bzero", " ", "[CLS] [MASK] unaffable", "\u0000\ufffd", "a" * 101),
    *("word " * 20_000, "x" * 100_000, "漢" * 40_000),
]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("minilm")
    return Settings(
        preprocessors=ROOT / "preprocessors",
        wheelhouse=folder / "wheelhouse",
        environments=folder / "environments",
    )


@pytest.fixture(scope="module")
def own(settings: Settings) -> list[wheels.Wheel]:
    return wheels.build(
        settings.preprocessors, settings.wheelhouse, Custody(settings.repository), print
    )


@pytest.fixture(scope="module")
async def report(settings: Settings, own: list[wheels.Wheel]) -> Any:
    requirements = resolve("minilm-preprocessor==1.0.0", (), Own(own, ()), settings)
    python = await Environments(settings.environments, settings.wheelhouse).python(requirements)
    return await asyncio.to_thread(run, python)


def run(python: Path) -> Any:
    command = [python, "-I", "-c", PROGRAM]
    done = subprocess.run(
        command, input=json.dumps(TEXTS), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def test_contract(report: Any) -> None:
    assert report["proven"]["goldens"] >= 8


async def test_runs_on_the_older_libraries(report: Any) -> None:
    versions = {name: Version(text) for name, text in report["versions"].items()}
    assert versions["minilm-preprocessor"] == Version("1.0.0")
    assert Version("4.46") <= versions["transformers"] < Version("4.47")
    assert Version("0.20") <= versions["tokenizers"] < Version("0.21")


async def test_gives_the_tokens_of_2x(report: Any) -> None:
    payloads = [Payload(json.dumps(text).encode()) for text in TEXTS]
    for text, ids, newer in zip(
        TEXTS, report["ids"], Runner(MiniLM()).prepare(payloads), strict=True
    ):
        assert isinstance(newer, Prepared)
        assert ids == newer.tensors["input_ids"].tolist(), text[:40]
        assert len(ids) <= 256


async def test_refuses_the_empty_text_by_path(report: Any) -> None:
    assert report["refused"] == [["$", "expected `str` of length >= 1"]]


def test_cannot_be_installed_beside_2x(
    settings: Settings, own: list[wheels.Wheel], tmp_path: Path
) -> None:
    newer = tomllib.loads((ROOT / "preprocessors/minilm/pyproject.toml").read_text())["project"]
    assert {(newer["name"], wheel.version) for wheel in own} >= {
        ("minilm-preprocessor", "1.0.0"),
        ("minilm-preprocessor", "2.0.0"),
    }
    (tmp_path / "both.in").write_text(
        "\n".join(["minilm-preprocessor==1.0.0", *newer["dependencies"]])
    )
    with pytest.raises(EnvironmentFailure, match="tokenizers"):
        run_uv("pip", "compile", tmp_path / "both.in", "--find-links", settings.wheelhouse)
