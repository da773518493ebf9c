"""Reads the translated strings out of the catalogues in the `django` wheel.

The compiled catalogues (`.mo`) are read, not their sources: they leave out fuzzy and obsolete
entries, exactly as Django does when it serves them.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import django

from training.text import normalise

#: Languages with fewer translated messages are left out: too few to learn from or to judge by.
LEAST_MESSAGES = 150
ENGLISH = "en"
#: Catalogues that differ from others of their language by script.
_SCRIPTS = {code: code for code in ("sr_Latn", "zh_Hans", "zh_Hant")}
_MAGIC = 0x950412DE


class Sample(NamedTuple):
    """One string: `text` as the catalogue has it, `normal` as the model reads it.

    `message` is the normalised English message that it translates (or is). `variety` is the
    language, or the language in one of its scripts (`sr_Latn`).
    """

    message: str
    language: str
    variety: str
    text: str
    normal: str


def read() -> list[Sample]:
    """Return every usable string of every language, sorted, without duplicates.

    A string that equals its English message is no translation. Regional variants and scripts
    count as their language: `pt_BR` is `pt`, `sr_Latn` is `sr`, `zh_Hant` is `zh`. Scripts, which
    share no n-grams, stay apart as varieties.
    """
    found: dict[tuple[str, str], Sample] = {}
    for path in sorted(Path(django.__file__).parent.glob("**/locale/*/LC_MESSAGES/*.mo")):
        variety = _SCRIPTS.get(path.parts[-3], path.parts[-3].split("_")[0])
        for message, translations in _entries(path.read_bytes()):
            key = normalise(message[0])
            pairs = [(ENGLISH, text) for text in message]
            if variety != ENGLISH:
                pairs += [(variety, text) for text in translations]
            for code, text in pairs:
                normal = normalise(text)
                untranslated = code != ENGLISH and normal in map(normalise, message)
                if normal.strip() and not untranslated:
                    sample = Sample(key, code.split("_")[0], code, text, normal)
                    found[code, normal] = min(sample, found.get((code, normal), sample))
    counts = Counter(code for code, _ in {(s.language, s.message) for s in found.values()})
    return sorted(s for s in found.values() if counts[s.language] >= LEAST_MESSAGES)


def _entries(content: bytes) -> Iterator[tuple[list[str], list[str]]]:
    """Yield (forms of the message, forms of the translation) of a compiled catalogue.

    The format: https://www.gnu.org/software/gettext/manual/html_node/MO-Files.html
    """
    magic, _, count, messages, translations = struct.unpack_from("<5I", content)
    if magic != _MAGIC:
        raise ValueError("not a little-endian .mo file")
    for index in range(count):
        message, translation = (
            content[offset : offset + length].decode().split("\0")
            for length, offset in (
                struct.unpack_from("<2I", content, table + 8 * index)
                for table in (messages, translations)
            )
        )
        if message != [""]:
            yield [message[0].rpartition("\4")[2], *message[1:]], translation
