"""The command line, in the models' environment: `python -m loadtests.zoo --help`."""

from __future__ import annotations

import argparse
from pathlib import Path

from loadtests.zoo import minilm


def main() -> None:
    """Write models."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--minilm", action="store_true", help="the real model")
    given = parser.parse_args()
    minilm.write(given.folder)


if __name__ == "__main__":
    main()
