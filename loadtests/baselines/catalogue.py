"""The models that a baseline serves: `models.json`, as `loadtests.zoo` writes it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Literal

import msgspec

#: Tokens kept of a text, `[CLS]` and `[SEP]` included: what the gateway's preprocessor keeps, too.
MOST_TOKENS = 256
#: How long a row of each kind of output is.
DIMENSIONS = {"embedding": 384, "scores": 2}


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model's files, absolute once read, and the name of its output in answers.

    The graphs take int64 `input_ids` and `attention_mask` (rows, tokens) and give float32 (rows,
    DIMENSIONS[output]), named `<output>__0` in ONNX.
    """

    checkpoint: str
    onnx: str
    torchscript: str
    output: Literal["embedding", "scores"]
    tokenizer: str


def read(path: Path) -> dict[str, Model]:
    """Read `models.json`; its paths are relative to it. Raises OSError, msgspec.DecodeError."""
    folder = path.absolute().parent
    models = msgspec.json.decode(path.read_bytes(), type=dict[str, Model])
    return {
        name: Model(
            checkpoint=str(folder / model.checkpoint),
            onnx=str(folder / model.onnx),
            torchscript=str(folder / model.torchscript),
            output=model.output,
            tokenizer=str(folder / model.tokenizer),
        )
        for name, model in models.items()
    }


def link(source: Path, target: Path) -> None:
    """Make a hard link, or a copy where `target` is on another disk: models are large."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copy(source, target)
