"""Texts of 4 to 40 real words: running prose of Python's own manual, which every Python carries."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from itertools import islice
from pydoc_data.topics import topics

SHORTEST, LONGEST = 4, 40
SEED = 4
#: Decks of all lengths by which the rounds of a run are apart.
DECKS = 11
_WORD = re.compile(r"[A-Za-z][A-Za-z'’-]*[.,;:?!]?")


def texts(count: int) -> list[str]:
    """Return distinct texts of 4 to 40 words, the same for the same Python.

    Lengths are dealt like cards: of each 37 consecutive texts every length has one, in random
    order. So a window of some hundred texts is as much work as any other.
    """
    words = (word for name in sorted(topics) for word in topics[name].split())
    prose = (word for word in words if _WORD.fullmatch(word))
    found: dict[str, None] = {}
    for length in _lengths():
        while len(found) < count:
            text = " ".join(islice(prose, length))
            if text.count(" ") < length - 1:
                raise ValueError(f"the manual has words for {len(found)} texts, not for {count}")
            if text not in found:
                found[text] = None
                break
        else:
            break
    return list(found)


def start(number: int, count: int) -> int:
    """Return where round `number` begins among `count` texts: with a whole deck, elsewhere."""
    return number * DECKS * (LONGEST - SHORTEST + 1) % count


def _lengths() -> Iterator[int]:
    rng = random.Random(SEED)  # noqa: S311 - the same texts every time are the point
    deck = list(range(SHORTEST, LONGEST + 1))
    while True:
        rng.shuffle(deck)
        yield from deck
