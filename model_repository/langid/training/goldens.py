"""Writes the golden cases, or their results, from the plain-Python and numpy reference."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gateway_preprocessor.goldens import FILE, Golden, Tensor, save

from training.cases import GOLDEN
from training.text import normalise
from training.weights import Weights

REFERENCE = "training/text.py (plain Python) and training/weights.py (numpy, no torch)"
#: The request's `top_k` where it names none.
TOP_K = 3
#: float32 against float64 arithmetic.
TOLERANCE = 1e-5


def write(weights: Weights, labels: Sequence[str], folder: Path) -> None:
    """Write the cases into a preprocessor package's `folder`."""
    save([_golden(weights, labels, *case) for case in GOLDEN], folder)


def write_results(weights: Weights, labels: Sequence[str], folder: Path) -> None:
    """Write what these weights make of the cases into a model version's `folder`, one a line."""
    cases = [_golden(weights, labels, *case) for case in GOLDEN]
    lines = [
        json.dumps({"name": case.name, "output": case.output}, ensure_ascii=False) for case in cases
    ]
    (folder / FILE).write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def _golden(
    weights: Weights, labels: Sequence[str], name: str, text: str, parameters: dict[str, int]
) -> Golden:
    normal = normalise(text)
    codes = np.array([ord(char) for char in normal], np.int32)
    (scores,) = weights.probabilities([normal])
    ranked = sorted(zip(scores.tolist(), labels, strict=True), key=lambda pair: -pair[0])
    found: list[dict[str, Any]] = [
        {"label": label, "score": score}
        for score, label in ranked[: parameters.get("top_k", TOP_K)]
    ]
    return Golden(
        name=name,
        reference=REFERENCE,
        input=text,
        parameters=parameters,
        tensors={"codepoints": Tensor.of(codes)},
        row={"scores__0": Tensor.of(scores)},
        output={"labels": found if normal.strip() else [{"label": "und", "score": 1.0}]},
        output_tolerance=TOLERANCE,
    )
