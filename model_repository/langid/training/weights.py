"""The trained model as numpy arrays, and its forward pass without torch: the goldens' reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from training.features import grams

#: Evidence is divided by (number of known n-grams) ** DAMPING: n-grams of one text overlap, so
#: they are not independent, and a plain sum would be far too sure of long texts.
DAMPING = 0.5


class Weights(NamedTuple):
    """A sparse linear model over n-grams. K n-grams, V varieties, P pairs of both, L languages.

    n-gram `k` adds `scale * weights[p]` to variety `columns[p]` for `p` in
    `starts[k]:starts[k + 1]`, and `per_gram` to every variety; `bias` is added once. The
    probability of a language is the sum over its varieties: those with `languages[v]` its index.
    """

    keys: NDArray[np.int32]  # (K,), ascending hashes
    starts: NDArray[np.int32]  # (K + 1,)
    columns: NDArray[np.uint8]  # (P,)
    weights: NDArray[np.int8]  # (P,)
    scale: float
    per_gram: NDArray[np.float32]  # (V,)
    bias: NDArray[np.float32]  # (V,)
    languages: NDArray[np.int64]  # (V,)

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the probability of each language for normalised texts, shape (texts, L)."""
        counts = count(texts, self.keys)
        shape = (len(self.keys), len(self.bias))
        table = sparse.csr_matrix((self.weights.astype(np.int64), self.columns, self.starts), shape)
        evidence = (counts.astype(np.int64) @ table).toarray() * self.scale
        varieties = softmax(damped(evidence, counts, self.per_gram) + self.bias)
        merge = np.eye(self.languages.max() + 1)[self.languages]
        return (varieties @ merge).astype(np.float32)


def count(texts: Sequence[str], keys: NDArray[np.int32]) -> sparse.csr_matrix:
    """Count the known n-grams of each text, shape (texts, K), float32; one entry an occurrence."""
    hashes, owner = grams(texts)
    position = np.minimum(np.searchsorted(keys, hashes), len(keys) - 1)
    known = keys[position] == hashes
    starts = np.searchsorted(owner[known], np.arange(len(texts) + 1))
    ones = np.ones(int(known.sum()), np.float32)
    return sparse.csr_matrix((ones, position[known], starts), (len(texts), len(keys)))


def damped(
    evidence: NDArray[np.floating], counts: sparse.csr_matrix, per_gram: NDArray[np.float32]
) -> NDArray[np.floating]:
    """Add what each known n-gram counts by itself, and damp by their number."""
    known = np.asarray(counts.sum(axis=1))
    return (evidence + known * per_gram) * damping(known)


def damping(known: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the factor for texts with so many known n-grams."""
    return np.maximum(known, 1) ** -DAMPING


def softmax(logits: NDArray[np.floating]) -> NDArray[np.floating]:
    """Turn each row of logits into probabilities."""
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)
