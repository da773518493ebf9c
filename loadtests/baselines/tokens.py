"""Texts to the tensors that the graphs take."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from loadtests.baselines.catalogue import MOST_TOKENS


class Tokens:
    """A model's tokenizer."""

    def __init__(self, path: str) -> None:
        self._tokenizer = Tokenizer.from_file(path)
        self._tokenizer.enable_truncation(MOST_TOKENS)
        self._tokenizer.enable_padding()  # to the longest of the call

    def __call__(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return `input_ids` and `attention_mask`, each (texts, tokens)."""
        found = self._tokenizer.encode_batch_fast(list(texts))
        ids = np.array([item.ids for item in found], np.int64)
        mask = np.array([item.attention_mask for item in found], np.int64)
        return ids, mask
