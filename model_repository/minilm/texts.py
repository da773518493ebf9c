"""Real texts of many lengths, to calibrate with and to measure on: what installed packages carry.

Docstrings, and the messages of Django's catalogues with their translations. Calibration and
measurement read the docstrings of different packages; a message and its translations are on one
side, which the digest of the English text decides.
"""

from __future__ import annotations

import ast
import gettext
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

CALIBRATION = ("sklearn", "scipy")
HELD_OUT = ("numpy", "networkx")
#: Of 256 digests, so many of the catalogues' messages are for calibration.
SHARE = 64
#: Characters of the longest text: more than the model's 256 tokens.
LONGEST = 2000


def texts(packages: Sequence[str], *, calibration: bool, counts: Sequence[int]) -> list[list[str]]:
    """Return texts of four kinds, so many of each and the same every time.

    The kinds are paragraphs of docstrings, whole docstrings, English messages, translations.
    """
    docstrings = [text for package in packages for text in _docstrings(package)]
    pairs = [pair for pair in _messages() if (_digest(pair[0])[0] < SHARE) == calibration]
    kinds = (
        (paragraph for text in docstrings for paragraph in re.split(r"\n\s*\n", text)),
        docstrings,
        (message for message, _ in pairs),
        (translation for message, translation in pairs if translation != message),
    )
    return [_sample(kind, count) for kind, count in zip(kinds, counts, strict=True)]


def _sample(found: Iterable[str], count: int) -> list[str]:
    """Choose by digest: where a package gains a text, the others stay."""
    plain = {" ".join(text.split())[:LONGEST] for text in found}
    return sorted((text for text in plain if len(text) > 1), key=_digest)[:count]


def _docstrings(package: str) -> Iterator[str]:
    """Yield prose: neither examples nor what only holds signatures and rules of dashes."""
    found = find_spec(package)
    (folder,) = found.submodule_search_locations if found else []
    for path in sorted(Path(folder).rglob("*.py")):
        if "tests" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                text = ast.get_docstring(node) or ""
                blocks = [b for b in re.split(r"\n\s*\n", text) if not re.search(">>>|---|===", b)]
                yield "\n\n".join(blocks)


def _messages() -> Iterator[tuple[str, str]]:
    """Yield (English message, translation) of every catalogue."""
    found = find_spec("django")
    (folder,) = found.submodule_search_locations if found else []
    for path in sorted(Path(folder).glob("**/locale/*/LC_MESSAGES/*.mo")):
        with path.open("rb") as file:
            catalogue: dict[str | tuple[str, int], str] = gettext.GNUTranslations(file)._catalog  # noqa: SLF001
        for key, translation in catalogue.items():
            message = key if isinstance(key, str) else key[0]
            if message:
                yield message.rpartition("\4")[2], translation


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
