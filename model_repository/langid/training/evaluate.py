"""Runs the written `model.pt` over strings and sums up how often it is right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from training.catalogues import Sample

#: Shorter strings are too often the same in several languages to judge a model by.
LONG = 20
_BATCH = 64


class Report(NamedTuple):
    """How a set of strings was answered. `recall` and `support` are per language.

    `right` says of each string whether it was told right, shape (strings,).
    """

    macro: float
    overall: float
    confidence: float
    right: NDArray[np.bool_]
    recall: dict[str, float]
    support: dict[str, int]
    confusions: list[tuple[tuple[str, str], int]]


def predict(model: Path, texts: Sequence[str]) -> NDArray[np.float32]:
    """Return the probabilities that the file `model` gives normalised texts, (texts, languages)."""
    network = torch.jit.load(str(model))
    results = []
    with torch.inference_mode():
        for start in range(0, len(texts), _BATCH):
            batch = texts[start : start + _BATCH]
            codes = np.zeros((len(batch), max(map(len, batch))), np.int32)
            for row, text in zip(codes, batch, strict=True):
                row[: len(text)] = [ord(char) for char in text]
            results.append(network(torch.from_numpy(codes)).numpy())
    return np.concatenate(results)


def report(
    samples: Sequence[Sample], probabilities: NDArray[np.float32], labels: Sequence[str]
) -> Report:
    """Compare answers with the truth; macro accuracy is the mean of the languages' recalls."""
    answers = [labels[index] for index in probabilities.argmax(axis=1)]
    truth = [sample.language for sample in samples]
    pairs = Counter(zip(truth, answers, strict=True))
    support = Counter(truth)
    recall = {code: pairs[code, code] / support[code] for code in sorted(support)}
    wrong = Counter({pair: number for pair, number in pairs.items() if pair[0] != pair[1]})
    return Report(
        macro=sum(recall.values()) / len(recall),
        overall=sum(pairs[code, code] for code in support) / len(samples),
        confidence=float(probabilities.max(axis=1).mean()),
        right=np.array(truth) == np.array(answers),
        recall=recall,
        support=dict(support),
        confusions=sorted(wrong.items(), key=lambda item: (-item[1], item[0])),
    )


def characters(sample: Sample) -> int:
    """Count what is left of a string after normalisation, without the boundaries."""
    return len(sample.normal) - 2
