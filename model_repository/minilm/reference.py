"""Embeddings computed directly from the original weights, by nothing that serves them.

A plain-Python WordPiece (Devlin et al. 2018, as specified by the model's `vocab.txt`) and one
unpadded forward pass a text: the yardstick of goldens and tests. Run it to embed a JSON list of
texts from standard input: `python reference.py < texts.json > embeddings.json`.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from typing import Any

import numpy as np
import torch
from encoder import WEIGHTS, Encoder
from numpy.typing import NDArray

MAX_TOKENS = 256
MAX_WORD = 100
CLS, SEP, UNKNOWN = "[CLS]", "[SEP]", "[UNK]"
CJK = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


def words(text: str) -> list[str]:
    """Clean, lower, strip accents, and split on spaces, punctuation and CJK characters."""
    kept = []
    for char in text:
        if char in "\t\n\r" or unicodedata.category(char) == "Zs":
            kept.append(" ")
        elif ord(char) in (0, 0xFFFD) or unicodedata.category(char).startswith("C"):
            continue
        else:
            alone = any(low <= ord(char) <= high for low, high in CJK)
            kept.append(f" {char} " if alone else char)
    # Lowering comes after decomposition and the marks are dropped last: "İ" becomes "i".
    plain = unicodedata.normalize("NFD", "".join(kept))
    plain = "".join(char for char in plain if unicodedata.category(char) != "Mn").lower()
    return "".join(f" {char} " if _punctuation(char) else char for char in plain).split()


def _punctuation(char: str) -> bool:
    ascii_sign = 33 <= ord(char) <= 126 and not char.isalnum()  # noqa: PLR2004 - ASCII's range
    return ascii_sign or unicodedata.category(char).startswith("P")


class Reference:
    """The model as its authors publish it: vocabulary, weights, pooling."""

    def __init__(self) -> None:
        vocabulary = (WEIGHTS / "vocab.txt").read_text(encoding="utf-8").split("\n")
        self.ids = {token: index for index, token in enumerate(vocabulary) if token}
        self.encoder = Encoder(WEIGHTS).eval()

    def tokens(self, text: str) -> NDArray[np.int64]:
        """Return the token ids, `[CLS]` and `[SEP]` included, at most 256."""
        pieces = [piece for word in words(text) for piece in self._pieces(word)]
        kept = [CLS, *pieces[: MAX_TOKENS - 2], SEP]
        return np.array([self.ids[piece] for piece in kept], np.int64)

    def _pieces(self, word: str) -> list[str]:
        if len(word) > MAX_WORD:
            return [UNKNOWN]
        pieces, start = [], 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = ("##" if start else "") + word[start:end]
                if piece in self.ids:
                    pieces.append(piece)
                    start = end
                    break
            else:
                return [UNKNOWN]
        return pieces

    def embed(self, text: str) -> NDArray[np.float32]:
        """Embed one text, alone and unpadded: float32 (384,), unit length."""
        ids = torch.from_numpy(self.tokens(text)[None])
        with torch.no_grad():
            row: NDArray[Any] = self.encoder(ids, torch.ones_like(ids))[0].numpy()
        return row


if __name__ == "__main__":
    reference = Reference()
    json.dump([reference.embed(text).tolist() for text in json.load(sys.stdin)], sys.stdout)
