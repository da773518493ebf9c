"""Plain-Python normalisation: the reference that the preprocessor package is measured against.

Works character by character where the package uses regular expressions and numpy, so that the
golden cases compare two implementations of the rules written in the package's README.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import cache

#: Characters of the input that are looked at; the rest of a long text adds nothing.
READ = 4096
#: Code points sent to the model, the boundary spaces at both ends included.
LENGTH = 256
APOSTROPHES = "'’‘ʼʻ`"
#: `&name;` with a longer name is no entity.
LONGEST_ENTITY = 31
MIDDLE_DOT = "·"


@cache
def normalise(text: str) -> str:
    """Return `text` as the model reads it: lower-case words between single spaces.

    Starts and ends with a space; a text without letters gives one space.
    """
    text = unicodedata.normalize("NFKC", text[:READ]).lower()
    words = "".join(_letters(_without_noise(text))).split(" ")
    kept = " ".join(word for word in words if word)[: LENGTH - 2].rstrip()
    return f" {kept} " if kept else " "


def _without_noise(text: str) -> str:
    """Blank out, left to right, what carries no language: addresses, markup, placeholders."""
    out, position = [], 0
    while position < len(text):
        end = _noise_end(text, position)
        out.append(" " if end else text[position])
        position = end or position + 1
    return "".join(out)


def _noise_end(text: str, start: int) -> int:
    """Return where the noise that starts at `start` ends; 0 where none starts."""
    if text.startswith(("http://", "https://", "www."), start):
        return _run(text, start, lambda char: not char.isspace())
    if start == 0 or text[start - 1].isspace():
        end = _run(text, start, lambda char: not char.isspace())
        if "@" in text[start:end]:
            return end
    if start == 0 or not _word(text[start - 1]):
        end = _run(text, start, _word)
        if "_" in text[start:end]:
            return end
    if text[start] in "<&%{":
        return _markup_end(text, start)
    return 0


def _markup_end(text: str, start: int) -> int:
    opening, rest = text[start], start + 1
    if opening == "<":
        first = rest + 1 if text[rest : rest + 1] == "/" else rest
        end = _run(text, rest, lambda char: char not in "<>")
        return end + 1 if _latin(text[first : first + 1]) and text[end : end + 1] == ">" else 0
    if opening == "&":
        first = rest + 1 if text[rest : rest + 1] == "#" else rest
        end = _run(text, first, _word)
        return end + 1 if 0 < end - first <= LONGEST_ENTITY and text[end : end + 1] == ";" else 0
    if opening == "{":
        end = _run(text, rest, _word)
        return end + 1 if text[end : end + 1] == "}" else 0
    if text[rest : rest + 1] == "(":
        end = _run(text, rest + 1, _word)
        return end + 2 if text[end : end + 1] == ")" and _latin(text[end + 1 : end + 2]) else 0
    alone = _latin(text[rest : rest + 1]) and not _word(text[rest + 1 : rest + 2])
    return rest + 1 if alone else 0


def _letters(text: str) -> list[str]:
    """Keep letters, the marks on them, and apostrophes and middle dots between them."""
    chars = [char for char in text if unicodedata.category(char) != "Cf"]
    out: list[str] = []
    for index, char in enumerate(chars):
        after_letter = bool(out) and out[-1] not in " '·"
        before_letter = index + 1 < len(chars) and _letter(chars[index + 1])
        if char in APOSTROPHES or char == MIDDLE_DOT:
            kept = MIDDLE_DOT if char == MIDDLE_DOT else "'"
            out.append(kept if after_letter and before_letter else " ")
        elif _letter(char) or (unicodedata.category(char)[0] == "M" and after_letter):
            out.append(char)
        else:
            out.append(" ")
    return out


def _letter(char: str) -> bool:
    return unicodedata.category(char)[0] == "L" and char not in APOSTROPHES


def _word(char: str) -> bool:
    return char.isalnum() or char == "_"


def _latin(char: str) -> bool:
    return "a" <= char <= "z"


def _run(text: str, start: int, member: Callable[[str], bool]) -> int:
    end = start
    while end < len(text) and member(text[end]):
        end += 1
    return end
