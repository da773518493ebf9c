"""Training: naive Bayes sets the weights, gradient descent on the training strings refines them.

Only pairs (n-gram, variety) that occur in the training strings get a weight: that keeps the
model small and lets an n-gram speak only for varieties that have it. numpy alone, one thread:
the same seed gives the same weights.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from training.catalogues import Sample
from training.features import grams
from training.recipes import Recipe
from training.text import LENGTH
from training.weights import Weights, count, damped, damping, softmax

SEED = 20240607
#: An n-gram must occur in that many training strings.
LEAST_SEEN = 3
BATCH = 256
#: A string is drawn with weight (strings of its variety) ** -BALANCE.
BALANCE = 0.9
#: Shares of training texts that are joined with another, and that are cut to a few words.
JOINED, CUT = 0.25, 0.4
MOST_WORDS, LEAST_CHARACTERS = 8, 6
_EPSILON = 1e-3


class _Adagrad:
    """A parameter with AdaGrad's per-element step sizes (Duchi et al., 2011)."""

    def __init__(self, value: NDArray[np.float32]) -> None:
        self.value = value
        self._squares = np.zeros_like(value)

    def step(
        self, gradient: NDArray[np.floating], rate: float, rows: NDArray[np.intp] | slice
    ) -> None:
        self._squares[rows] += gradient**2
        self.value[rows] -= rate * gradient / (np.sqrt(self._squares[rows]) + _EPSILON)


class _Model(NamedTuple):
    keys: NDArray[np.int32]
    observed: NDArray[np.bool_]  # (K, V)
    table: _Adagrad  # (K, V)
    per_gram: _Adagrad  # (V,)
    bias: _Adagrad  # (V,)


def fit(samples: Sequence[Sample], labels: Sequence[str], recipe: Recipe) -> Weights:
    """Train on `samples` by `recipe`; `labels` fixes the order of the languages.

    Each variety is a class of its own: a language in two scripts would halve the share of each
    script's n-grams in it, and lose against neighbours written in one.
    """
    varieties = sorted({sample.variety for sample in samples})
    targets = np.array([varieties.index(sample.variety) for sample in samples])
    model = _naive_bayes(samples, targets, len(varieties), recipe.smoothing)
    steps = recipe.epochs * (len(samples) // BATCH)
    generator = random.Random(SEED)  # noqa: S311 - reproducible, no secret
    numbers = np.random.default_rng(SEED)
    step = 0
    for _ in range(recipe.epochs):
        texts, wanted = _augmented(samples, targets, generator)
        counts = count(texts, model.keys)
        counts.data = (numbers.random(counts.nnz) >= recipe.dropout).astype(np.float32)
        counts.eliminate_zeros()
        for start in range(0, len(samples) - BATCH + 1, BATCH):
            rows = slice(start, start + BATCH)
            _descend(model, counts[rows], wanted[rows], recipe.rate * (1 - step / steps))
            step += 1
    languages = np.array([labels.index(variety.split("_")[0]) for variety in varieties])
    return _quantised(model, languages)


def _naive_bayes(
    samples: Sequence[Sample], targets: NDArray[np.intp], varieties: int, smoothing: float
) -> _Model:
    hashes, owner = grams([sample.normal for sample in samples])
    keys, which = np.unique(hashes, return_inverse=True)
    strings = np.unique(which.astype(np.int64) * len(samples) + owner) // len(samples)
    common = np.bincount(strings, minlength=len(keys)) >= LEAST_SEEN
    ones = np.ones(len(hashes), np.float32)
    shape = (len(keys), varieties)
    counts = sparse.csr_matrix((ones, (which, targets[owner])), shape)[common].toarray()
    per_gram = -np.log(counts.sum(axis=0))
    return _Model(
        keys[common],
        counts > 0,
        _Adagrad(np.log((counts + smoothing) / smoothing)),
        _Adagrad(per_gram - per_gram.mean()),
        _Adagrad(np.zeros(varieties, np.float32)),
    )


def _augmented(
    samples: Sequence[Sample], targets: NDArray[np.intp], generator: random.Random
) -> tuple[list[str], NDArray[np.intp]]:
    """Draw as many texts as there are samples, the varieties nearly balanced; vary their length."""
    strings = defaultdict(list)
    for sample in samples:
        strings[sample.variety].append(sample.normal.strip())
    sizes = Counter(sample.variety for sample in samples)
    chances = [sizes[sample.variety] ** -BALANCE for sample in samples]
    drawn = generator.choices(range(len(samples)), chances, k=len(samples))
    texts = []
    for index in drawn:
        text, draw = samples[index].normal.strip(), generator.random()
        if draw < JOINED:
            text = f"{text} {generator.choice(strings[samples[index].variety])}"
        elif draw < JOINED + CUT:
            text = _cut(text, generator)
        texts.append(f" {text[: LENGTH - 2]} ")
    return texts, targets[drawn]


def _cut(text: str, generator: random.Random) -> str:
    """Cut out a few words; of a single long word (or a script without spaces) some characters."""
    words = text.split(" ")
    if len(words) > 1:
        start = generator.randrange(len(words))
        return " ".join(words[start : start + generator.randint(1, MOST_WORDS)])
    start = generator.randrange(max(1, len(text) - LEAST_CHARACTERS))
    return text[
        start : start + generator.randint(LEAST_CHARACTERS, max(LEAST_CHARACTERS, len(text)))
    ]


def _descend(
    model: _Model, counts: sparse.csr_matrix, targets: NDArray[np.intp], rate: float
) -> None:
    """One step of gradient descent on the cross entropy of a batch, summed over its texts."""
    known = np.asarray(counts.sum(axis=1))
    columns = np.unique(counts.indices)
    counts = counts[:, columns]
    evidence = counts @ model.table.value[columns]
    logits = damped(evidence, counts, model.per_gram.value) + model.bias.value
    error = softmax(logits).astype(np.float32)
    error[np.arange(len(targets)), targets] -= 1
    inner = (error * damping(known)).astype(np.float32)
    model.table.step((counts.T @ inner) * model.observed[columns], rate, columns)
    model.per_gram.step((inner * known).sum(axis=0), rate / 10, slice(None))
    model.bias.step(error.sum(axis=0), rate, slice(None))


def _quantised(model: _Model, languages: NDArray[np.int64]) -> Weights:
    """Keep each weight as one byte: exact integer sums, whatever the order and the padding."""
    table = model.table.value
    scale = float(np.abs(table).max()) / 127
    gram, columns = model.observed.nonzero()
    weights = np.rint(table[gram, columns] / scale).astype(np.int8)
    starts = np.searchsorted(gram, np.arange(len(model.keys) + 1)).astype(np.int32)
    return Weights(
        model.keys,
        starts,
        columns.astype(np.uint8),
        weights,
        scale,
        model.per_gram.value,
        model.bias.value,
        languages,
    )
