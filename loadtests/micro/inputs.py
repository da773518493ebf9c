"""What is sent: the corpus, and tumor's golden records with the answers they must get."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec

from loadtests.load import corpus
from loadtests.load.service import ROOT

GOLDENS = ROOT / "preprocessors/tumor/src/tumor_preprocessor/goldens.json"


class Inputs(NamedTuple):
    """A folder with JSON lists: `size` texts; records, and the verdict on each."""

    folder: Path
    size: int
    texts: Path
    records: Path
    verdicts: Path

    def read_texts(self) -> list[str]:
        """Return the corpus."""
        return msgspec.json.decode(self.texts.read_bytes(), type=list[str])


def write(folder: Path, count: int) -> Inputs:
    """Write `count` texts and all golden records."""
    goldens = msgspec.json.decode(GOLDENS.read_bytes())
    paths = [folder / f"{name}.json" for name in ("texts", "records", "verdicts")]
    contents = (
        corpus.texts(count),
        [golden["input"] for golden in goldens],
        [golden["output"] for golden in goldens],
    )
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(msgspec.json.encode(content))
    return Inputs(folder, count, *paths)
