"""Character n-grams as 31-bit hashes; `torchscript.py` computes the same inside the graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

#: Longest n-gram, in code points.
LONGEST = 4
#: Code points are grouped by 2**BLOCK_BITS: most Unicode blocks, so a script shows by itself.
BLOCK_BITS = 7
#: Added to a block's number, so that it is no code point.
BLOCK = 1 << 21
#: h ← (h · PRIME xor value) mod 2**31: fits int64 without overflow. PRIME is MurmurHash2's.
PRIME = 0x5BD1E995
START = 0x011C9DC5
MASK = 0x7FFFFFFF
SPACE = 32


def grams(texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return all n-grams of normalised texts: their hashes, and the index of each one's text.

    The n-grams of 1 to LONGEST code points, spaces (word boundaries) included, except a lone
    space; and the block of every letter.
    """
    padded = "".join(text + "\0" * LONGEST for text in texts)
    codes = np.frombuffer(padded.encode("utf-32-le"), "<u4").astype(np.int64)
    owner = np.repeat(np.arange(len(texts)), [len(text) + LONGEST for text in texts])
    letter = (codes != 0) & (codes != SPACE)

    found = [_mix(START, (codes >> BLOCK_BITS) + BLOCK)[letter]]
    owners = [owner[letter]]
    running = np.full_like(codes, START)
    for order in range(1, LONGEST + 1):
        last = np.roll(codes, 1 - order)
        running = _mix(running, last)
        whole = letter if order == 1 else (codes != 0) & (last != 0)
        found.append(running[whole])
        owners.append(owner[whole])
    by_text = np.argsort(np.concatenate(owners), kind="stable")
    return (
        np.concatenate(found)[by_text].astype(np.int32),
        np.concatenate(owners)[by_text],
    )


def _mix(running: NDArray[np.int64] | int, value: NDArray[np.int64]) -> NDArray[np.int64]:
    return ((running * PRIME) ^ value) & MASK
