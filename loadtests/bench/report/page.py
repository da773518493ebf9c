"""Puts numbers, sentences and drawings together: one page, and Markdown with files beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from loadtests.bench.report import aims, figures, palette, sentences, tables, wording
from loadtests.bench.report.plots import Plot
from loadtests.bench.report.repeated import compare
from loadtests.bench.results import Results

TEMPLATES = Path(__file__).parent / "templates"


def write(results: Results, folder: Path, earlier: Results | None = None) -> None:
    """Write `report.html`, `report.md` and the drawings that the latter shows, as SVG files.

    `earlier` is a run of the same command before this one, to be compared with it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = figures.draw(results, palette.titles(results))
    said = contents(results, drawn, earlier)
    for name in ("report.html", "report.md"):
        (folder / name).write_text(render(name, said), encoding="utf-8")
    for plot in (plot for plots in drawn.values() for plot in plots):
        (folder / f"{plot.name}.svg").write_text(plot.file, encoding="utf-8")


def contents(
    results: Results, drawn: Mapping[str, list[Plot]], earlier: Results | None = None
) -> dict[str, Any]:
    """Return everything that the templates show."""
    titles = palette.titles(results)
    judged = aims.judge(results)
    both = compare(results, earlier) if earlier else []
    return {
        "results": results,
        "rounds": len({w.round for s in results.scenarios for w in s.windows}),
        "minutes": wording.number(results.seconds / 60, 2),
        "arms": sorted(results.arms, key=lambda arm: list(titles).index(arm.name)),
        "titles": titles,
        "architectures": tables.architectures(results, titles),
        "conclusions": sentences.conclusions(results, titles),
        "aims": tables.aims(judged, titles),
        "misses": sentences.misses(results, judged, titles),
        "losses": sentences.losses(results, titles),
        "cautions": sentences.cautions(results, titles),
        "scenarios": [
            (scenario, wording.label(scenario), drawn[scenario.name], found)
            for scenario in results.scenarios
            for found in [tables.windows(scenario, titles)]
        ],
        "again": sentences.agreement(both, earlier) if earlier and both else None,
        "runs": tables.runs(both, titles),
        "generators": tables.generators(results),
        "agreements": tables.agreements(results, titles),
    }


def render(name: str, said: Mapping[str, Any]) -> str:
    """Fill one template."""
    environment = Environment(
        autoescape=name.endswith(".html"),
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["inline"] = lambda plot: Markup(plot.inline)  # noqa: S704 - our own SVG
    environment.filters["parts"] = _parts
    environment.filters["cell"] = lambda text: str(text).replace("|", "\\|").replace("\n", " ")
    return environment.get_template(f"{name}.j2").render(said)


def _parts(text: str) -> tuple[str, str]:
    """Split what is in brackets off: the page writes it smaller, on a line of its own."""
    middle, bracket, spread = text.partition(" (")
    return middle, bracket.strip() + spread
