"""The texts that everything here is measured on: 4 to 40 words each, the same for a seed."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from tokenizers import Tokenizer

TOKENIZER = (
    Path(__file__).parents[2]
    / "preprocessors/minilm/src/minilm_preprocessor/tokenizer.json"  # bert-base-uncased's
)
WORDS = (4, 40)
#: Tokens are padded to a multiple of this, which a GPU's matrix units like, and which keeps the
#: shapes few: each is recorded as a CUDA graph.
STEP = 8
#: The most tokens that a text of these has, rounded up.
MOST_TOKENS = 48
#: The vocabulary is ordered by how common its entries are; whole common words stand here.
COMMON = (2000, 12_000)


def texts(count: int, seed: int = 0) -> list[str]:
    """Return `count` texts of random common words, of evenly spread lengths."""
    chance = random.Random(seed)  # noqa: S311 - data, not secrets
    vocabulary = json.loads(TOKENIZER.read_text(encoding="utf-8"))["model"]["vocab"]
    words = [word for word, number in vocabulary.items() if COMMON[0] <= number < COMMON[1]]
    words = [word for word in words if word.isascii() and word.isalpha()]
    return [" ".join(chance.choices(words, k=chance.randint(*WORDS))) for _ in range(count)]


def wordpiece() -> Tokenizer:
    """Return the tokenizer, as minilm's preprocessor uses it."""
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


if __name__ == "__main__":
    print(json.dumps(texts(int(sys.argv[1]))))
