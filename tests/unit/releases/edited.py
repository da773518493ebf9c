"""A manifest to edit, and what it says afterwards."""

from __future__ import annotations

from pathlib import Path

from gateway.releases.manifest import FILE, read_one

TEXT = """\
# Who to ask: the search team
[releases.1]
model_version = 1
preprocessor = "some-preprocessor==1.0.0"   # the old line

[releases."2.0"]
model_version = 2
preprocessor = 'some-preprocessor==2.0.0'
batching = { max_rows = 16 }

[traffic]   # weights
1 = 100     # since spring

# the end
"""


def split(folder: Path) -> dict[str, int]:
    return {name: weight for name, weight in read_one(folder / FILE).traffic.items() if weight}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
