"""Finds the line of a key in a TOML text, for messages."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


def dotted(keys: Sequence[str]) -> str:
    """Write the path of a key as TOML does: `traffic."1.2"`."""
    return ".".join(key if _BARE.fullmatch(key) else f'"{key}"' for key in keys)


def line_of(text: str, keys: Sequence[str]) -> int:
    """Return the line, from 1, that sets `keys` in `text`, which is valid TOML.

    For a missing key it is the line of the table that lacks it; `()` is line 1. The parser itself
    decides: it reads ever more lines until the key appears, so that dotted and quoted keys, inline
    tables and multi-line values need no rules.
    """
    keys = _existing(tomllib.loads(text), keys)
    lines = text.split("\n")
    begins = 1
    for end in range(1, len(lines) + 1):
        try:
            tree = tomllib.loads("\n".join(lines[:end]))
        except tomllib.TOMLDecodeError:
            continue  # inside a multi-line value
        if len(_existing(tree, keys)) == len(keys):
            return begins
        begins = end + 1
    return 1


def syntax(text: str, error: tomllib.TOMLDecodeError) -> tuple[int, str]:
    """Return the line of a syntax error, and its description."""
    place = _PLACE.search(str(error))
    line = int(place[1]) if place and place[1] else text.count("\n") + (not text.endswith("\n"))
    return max(line, 1), _PLACE.sub("", str(error))


def _existing(tree: Any, keys: Sequence[str]) -> tuple[str, ...]:
    """Return the longest prefix of `keys` that exists in `tree`."""
    found: list[str] = []
    for key in keys:
        if not isinstance(tree, dict) or key not in tree:
            break
        tree = tree[key]
        found.append(key)
    return tuple(found)
