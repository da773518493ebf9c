"""Normalisation: the part of a text that tells its language, as code points for the model."""

from __future__ import annotations

import re
import unicodedata

import numpy as np
from numpy.typing import NDArray

#: Characters of the input that are looked at; bounds the work that one instance can cause.
READ = 4096
#: Most code points sent, the boundary spaces at both ends included.
LENGTH = 256

_SPACE, _LETTER, _MARK, _APOSTROPHE, _DOT, _FORMAT = range(6)
_BLANK, _QUOTE, _MIDDLE_DOT = ord(" "), ord("'"), ord("·")
# Each alternative is linear in the text: runs start only at a word's or a token's beginning.
_NOISE = re.compile(
    r"(?:https?://|www\.)\S*"  # web addresses
    r"|(?<!\S)[^\s@]*@\S*"  # e-mail addresses, @handles
    r"|(?<!\w)[^\W_]*_\w*"  # identifiers: list_display
    r"|</?[a-z][^<>]*>|&#?\w{1,31};"  # markup
    r"|\{\w*\}|%\(\w*\)[a-z]|%[a-z](?!\w)"  # placeholders: {name}, %(name)s, %d
)


def character_classes() -> NDArray[np.uint8]:
    """Return the class of every Unicode code point, shape (1114112,), uint8."""
    of_category = {"L": _LETTER, "M": _MARK}
    categories = map(unicodedata.category, map(chr, range(0x110000)))
    classes = np.fromiter(
        (_FORMAT if name == "Cf" else of_category.get(name[0], _SPACE) for name in categories),
        np.uint8,
        0x110000,
    )
    classes[[ord(char) for char in "'’‘ʼʻ`"]] = _APOSTROPHE
    classes[_MIDDLE_DOT] = _DOT
    return classes


def codepoints(text: str, classes: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Return the code points of lower-case words between single spaces, shape (1..LENGTH,), int32.

    Starts and ends with a space; a text without letters gives one space. Compatibility forms
    are folded (NFKC); digits, punctuation, symbols, addresses, markup and placeholders go;
    apostrophes and middle dots stay between letters.
    """
    folded = unicodedata.normalize("NFKC", text[:READ]).lower()
    words = f" {_NOISE.sub(' ', folded)} "
    codes = np.frombuffer(words.encode("utf-32-le", "surrogatepass"), "<i4")
    codes = codes[classes[codes] != _FORMAT]
    kinds = classes[codes]

    base = np.maximum.accumulate(np.where(kinds != _MARK, np.arange(len(kinds)), 0))
    spoken = kinds[base] == _LETTER  # letters, and marks on letters
    joined = (kinds == _APOSTROPHE) | (kinds == _DOT)
    joined[1:-1] &= spoken[:-2] & (kinds[2:] == _LETTER)
    codes = np.where(spoken | joined, codes, _BLANK)
    codes[joined & (kinds == _APOSTROPHE)] = _QUOTE

    blank = codes == _BLANK
    blank[1:] &= blank[:-1]
    blank[0] = False
    codes = codes[~blank]
    if len(codes) > LENGTH:
        codes = codes[:LENGTH]
        closing = LENGTH - 2 if codes[LENGTH - 2] == _BLANK else LENGTH - 1
        codes = np.append(codes[:closing], _BLANK)
    return codes.astype(np.int32)
