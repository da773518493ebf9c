"""`models.json` and `reference.json`: what a folder of models has, and what it must answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from loadtests.baselines.catalogue import Model
from loadtests.load import corpus

MODELS, REFERENCE = "models.json", "reference.json"
#: Reference answers of a model.
CASES = 8


class Cases(msgspec.Struct, frozen=True):
    """Texts and the outputs that they must get.

    Those are what the float32 weights give in torch, one unpadded text at a time.
    """

    inputs: list[str]
    outputs: list[list[float]]


def texts() -> list[str]:
    """Return the texts that every model has a reference for: 4 to 40 words."""
    return corpus.texts(CASES)


def entry(name: str, output: str) -> Model:
    """Return a model's entry: its files lie in a folder of its name."""
    return msgspec.convert(
        {
            "checkpoint": f"{name}/checkpoint",
            "onnx": f"{name}/model.onnx",
            "torchscript": f"{name}/model.pt",
            "output": output,
            "tokenizer": f"{name}/checkpoint/tokenizer.json",
        },
        Model,
    )


def write(folder: Path, models: Mapping[str, Model], cases: Mapping[str, Cases]) -> None:
    """Write both files, `models.json` last: where it is, everything is."""
    for path, content in ((REFERENCE, cases), (MODELS, models)):
        publish(folder / path, msgspec.json.format(msgspec.json.encode(content), indent=1))


def publish(path: Path, content: bytes) -> None:
    """Write a file at once: a run that is cut short leaves none that looks whole."""
    partial = path.with_name(f".{path.name}")
    partial.write_bytes(content)
    partial.replace(path)
