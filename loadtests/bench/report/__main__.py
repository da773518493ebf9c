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
@click.option(
    "--earlier",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Results of the run before, to compare; if left out, earlier.json beside RESULTS.json.",
)
def main(path: Path, out: Path, earlier: Path | None) -> None:
    """Make a page and Markdown of what a run found."""
    kept = path.with_name(results.EARLIER)
    before = earlier or (kept if kept.exists() else None)
    page.write(results.read(path), out, results.read(before) if before else None)
    print(f"{out / 'report.html'}, {out / 'report.md'}")


if __name__ == "__main__":
    main()
