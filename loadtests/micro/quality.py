"""How far another release's embeddings of all texts are from the bare fp32 model's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Texts that a request carries, and neighbours that a search would show.
ROWS, NEIGHBOURS = 64, 10


def quality(
    ask: Callable[[list[str]], list[Any]], texts: list[str], expected: Path
) -> dict[str, float]:
    """Return mean and least cosine, and the mean share of each text's ten nearest that stay."""
    reference: NDArray[np.float32] = np.load(expected)
    outputs = [
        output["embedding"]
        for start in range(0, len(texts), ROWS)
        for output in ask(texts[start : start + ROWS])
    ]
    found = np.array(outputs, np.float32)
    cosines = (found * reference).sum(1)  # both are of unit length
    pairs = zip(_nearest(reference), _nearest(found), strict=True)
    kept = [len(np.intersect1d(one, other)) / NEIGHBOURS for one, other in pairs]
    return {
        "cosine.mean": float(cosines.mean()),
        "cosine.min": float(cosines.min()),
        "overlap": float(np.mean(kept)),
    }


def _nearest(embeddings: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return each row's nearest others: (rows, NEIGHBOURS)."""
    similarity = embeddings @ embeddings.T
    np.fill_diagonal(similarity, -1)
    return np.argpartition(-similarity, NEIGHBOURS)[:, :NEIGHBOURS]
