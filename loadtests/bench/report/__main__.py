"""`python -m loadtests.bench.report RESULTS.json --out FOLDER` writes the report of a run."""

from __future__ import annotations

from pathlib import Path

import click

from loadtests.bench import results
from loadtests.bench.report import page


@click.command()
@click.argument("path", metavar="RESULTS.json", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder that report.html, report.md and its drawings are written to.",
)
def main(path: Path, out: Path) -> None:
    """Make a page and Markdown of what a run found."""
    page.write(results.read(path), out)
    print(f"{out / 'report.html'}, {out / 'report.md'}")


if __name__ == "__main__":
    main()
