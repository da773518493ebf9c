"""The command line, in the models' environment: `python -m loadtests.zoo --help`."""

from __future__ import annotations

import argparse
from pathlib import Path

from loadtests.bert.network import SIZES
from loadtests.zoo import NOTICE, build, minilm


def main() -> None:
    """Write models."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.zoo", description="Writes models to measure with."
    )
    parser.add_argument("folder", type=Path)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--minilm", action="store_true", help="the real model")
    what.add_argument("--count", type=int, help=f"so many classifiers; {NOTICE}")
    parser.add_argument("--size", choices=SIZES, default="small", help="of each classifier")
    given = parser.parse_args()
    if given.minilm:
        minilm.write(given.folder)
    else:
        build.write(given.folder, given.count, given.size)


if __name__ == "__main__":
    main()
