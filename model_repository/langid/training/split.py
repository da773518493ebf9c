"""Splits the strings by message, so that no string or near-duplicate is on both sides.

Two strings are near-duplicates when they are equal once case, spaces, punctuation, digits and
placeholders are gone, or when their sets of character 4-grams overlap by at least `OVERLAP`
(Jaccard index).
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer

from training.catalogues import Sample

SEED = 20240607
HELD_OUT = 0.2
OVERLAP = 0.5
_CHUNK = 512


def split(samples: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    """Return (training, held out).

    Messages that are near-duplicates of each other, directly or through a chain, stay together
    with all their translations. Of what is left, training strings that are near-duplicates of a
    held-out string in any language (two messages with one translation) are dropped.
    """
    messages = sorted({sample.message for sample in samples})
    groups = _groups(messages)
    order = sorted(set(groups))
    random.Random(SEED).shuffle(order)  # noqa: S311 - reproducible, no secret
    held_messages: set[str] = set()
    for group in order:
        if len(held_messages) >= HELD_OUT * len(messages):
            break
        held_messages |= {m for m, g in zip(messages, groups, strict=True) if g == group}
    held = [sample for sample in samples if sample.message in held_messages]
    rest = [sample for sample in samples if sample.message not in held_messages]
    close = near([sample.normal for sample in rest], [sample.normal for sample in held])
    duplicates = set(close.nonzero()[0].tolist())
    return [sample for i, sample in enumerate(rest) if i not in duplicates], held


def near(left: Sequence[str], right: Sequence[str]) -> sparse.csr_matrix:
    """Return the matrix (left, right) that is non-zero where two normalised texts are close."""
    keys = [[text.replace(" ", "") for text in side] for side in (left, right)]
    vectorizer = CountVectorizer(
        analyzer=_grams, binary=True, dtype=np.float32, lowercase=False
    ).fit([*keys[0], *keys[1]])
    a, b = (vectorizer.transform(side) for side in keys)
    sizes_a, sizes_b = (np.asarray(m.sum(axis=1)).ravel() for m in (a, b))
    blocks = []
    for start in range(0, a.shape[0], _CHUNK):
        shared = (a[start : start + _CHUNK] @ b.T).tocoo()
        union = sizes_a[start + shared.row] + sizes_b[shared.col] - shared.data
        shared.data = (shared.data >= OVERLAP * union).astype(np.float32)
        shared.eliminate_zeros()
        blocks.append(shared)
    return sparse.vstack(blocks).tocsr()


def _grams(key: str) -> list[str]:
    """The 4-grams of a text; one gram for the whole of a shorter one."""
    return [key[i : i + 4] for i in range(len(key) - 3)] or [key]


def _groups(messages: list[str]) -> list[int]:
    _, labels = sparse.csgraph.connected_components(near(messages, messages), directed=False)
    return labels.tolist()
