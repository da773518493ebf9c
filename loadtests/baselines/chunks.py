"""Cuts a request's texts into calls of the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def in_chunks(
    texts: Sequence[str], rows: int, infer: Callable[[list[str]], NDArray[Any]]
) -> NDArray[Any]:
    """Run `infer` on at most `rows` texts at once; returns its rows in the order of `texts`.

    Texts of like length share a call, so that little is padded: what Sentence-Transformers does
    with a list of texts, too. Texts of several requests never share one.
    """
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    parts = [
        infer([texts[index] for index in order[start : start + rows]])
        for start in range(0, len(order), rows)
    ]
    joined = np.concatenate(parts)
    found = np.empty_like(joined)
    found[order] = joined
    return found
