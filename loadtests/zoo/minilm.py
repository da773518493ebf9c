"""The real model in a folder of the same form: links to what is packaged and built."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from loadtests.zoo import catalogue

NAME = "minilm"
REPOSITORY = Path(__file__).parents[2] / "model_repository"


def write(folder: Path) -> None:
    """Link MiniLM's files and write down what its original weights answer."""
    sys.path.insert(0, str(REPOSITORY / NAME))  # its own modules
    weights = import_module("encoder").WEIGHTS
    reference = import_module("reference").Reference()

    own = folder / NAME
    own.mkdir(parents=True, exist_ok=True)
    links = {
        "checkpoint": weights,
        "model.onnx": REPOSITORY / NAME / "1/model.onnx",
        "model.pt": REPOSITORY / f"{NAME}_torchscript/1/model.pt",
    }
    for name, target in links.items():
        if not target.exists():
            raise FileNotFoundError(f"{target} is not there: `make models` builds it")
        (own / name).unlink(missing_ok=True)
        (own / name).symlink_to(target)
    texts = catalogue.texts()
    outputs = [reference.embed(text).tolist() for text in texts]
    catalogue.write(
        folder,
        {NAME: catalogue.entry(NAME, "embedding")},
        {NAME: catalogue.Cases(texts, outputs)},
    )
