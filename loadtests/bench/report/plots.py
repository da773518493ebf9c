"""Drawings as SVG: bars, stacked bars and lines, legible on paper, phones and dark screens.

Text and lines are drawn in two stand-in colours: on the page they become the page's own, in a
file of its own dark on white.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtests.bench.report import wording
from loadtests.bench.report.statistics import Spread

INK, PAPER = "#010203", "#fdfeff"
WIDTH = 5.2  # inches; some 500 CSS pixels
BAR = 0.42  # inches
LABEL = 22  # characters a line
STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: small files, and it can be searched
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "grid.color"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "legend.facecolor"), PAPER),
}


class Plot(NamedTuple):
    """A drawing: its file's name, its title, and the SVG with the stand-in colours."""

    name: str
    title: str
    svg: str

    @property
    def inline(self) -> str:
        """Return it for a page: in the page's colours, with names that no other drawing has."""
        body = self.svg[self.svg.index("<svg") :].replace(PAPER, "var(--paper)")
        body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{self.name}-", body)
        body = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", body, count=1)
        return body.replace(INK, "currentColor")

    @property
    def file(self) -> str:
        """Return it as a file: dark on white."""
        return self.svg.replace(PAPER, "#ffffff").replace(INK, "#1a1a1a")


class Bar(NamedTuple):
    """A bar with its spread."""

    label: str
    colour: str
    value: Spread


class Line(NamedTuple):
    """A line; `ys` are medians with their spread. Hollow points are marked `doubtful`."""

    label: str
    colour: str
    marker: str
    xs: Sequence[float]
    ys: Sequence[Spread]
    doubtful: Sequence[bool] = ()


class Mark(NamedTuple):
    """A value that all are held against, with its name."""

    label: str
    value: float


def bars(
    name: str,
    title: str,
    unit: str,
    panels: Mapping[str, Sequence[Bar]],
    marks: Mapping[str, Mark] | None = None,
) -> Plot:
    """Draw horizontal bars with whiskers from the least to the greatest, one panel a heading."""
    heights = [len(found) * BAR + 0.35 for found in panels.values()]
    with rc_context(STYLE):
        figure, axes = _panels(title, heights)
        most = max(bar.value.most for found in panels.values() for bar in found)
        for ax, (heading, found) in zip(axes, panels.items(), strict=True):
            for at, bar in enumerate(found):
                value = bar.value
                reach = [[value.median - value.least], [value.most - value.median]]
                ax.barh(at, value.median, 0.62, color=bar.colour)
                ax.errorbar(value.median, at, xerr=reach, color=INK, capsize=3, lw=1.2)
                _value(ax, value.median, value.most, at)
            mark = (marks or {}).get(heading)
            if mark:
                most = max(most, mark.value)
                ax.axvline(mark.value, color=INK, ls="--", lw=1.2, label=mark.label)
                ax.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, borderpad=0)
            _rows(ax, heading, [bar.label for bar in found])
        for ax in axes:
            ax.set_xlim(0, most * 1.2 or 1)
        axes[-1].set_xlabel(unit)
        return _plot(name, title, figure)


def stacks(
    name: str,
    title: str,
    unit: str,
    panels: Mapping[str, Mapping[str, Mapping[str, float]]],
    colours: Mapping[str, str],
) -> Plot:
    """Draw horizontal bars made of parts: panel → bar → part → value."""
    heights = [len(found) * BAR + 0.35 for found in panels.values()]
    most = max(sum(parts.values()) for found in panels.values() for parts in found.values())
    with rc_context(STYLE):
        figure, axes = _panels(title, heights, legend=len(colours))
        for ax, (heading, found) in zip(axes, panels.items(), strict=True):
            for at, parts in enumerate(found.values()):
                left = 0.0
                for part, colour in colours.items():
                    if part in parts:
                        ax.barh(at, parts[part], 0.62, left=left, color=colour, label=part)
                        left += parts[part]
                _value(ax, left, left, at)
            ax.set_xlim(0, most * 1.2 or 1)
            _rows(ax, heading, list(found))
        axes[-1].set_xlabel(unit)
        _legend(figure, axes, list(colours))
        return _plot(name, title, figure)


def lines(
    name: str,
    title: str,
    units: tuple[str, str],
    found: Sequence[Line],
    mark: Mark | None = None,
    ticks: Mapping[float, str] | None = None,
    *,
    log: bool = False,
) -> Plot:
    """Draw lines with whiskers; `ticks` are the names of the x values where they are no scale."""
    with rc_context(STYLE):
        figure, (ax,) = _panels(title, [3.0], legend=len(found) + bool(mark))
        for line in found:
            middles = [value.median for value in line.ys]
            reach = [
                [value.median - value.least for value in line.ys],
                [value.most - value.median for value in line.ys],
            ]
            ax.errorbar(line.xs, middles, reach, color=line.colour, capsize=3, lw=1.6)
            ax.plot([], [], color=line.colour, marker=line.marker, lw=1.6, label=line.label)
            for at, (x, y) in enumerate(zip(line.xs, middles, strict=True)):
                hollow = line.doubtful and line.doubtful[at]
                face = PAPER if hollow else line.colour
                ax.plot(x, y, line.marker, color=line.colour, markerfacecolor=face, ms=6)
        if mark:
            ax.axhline(mark.value, color=INK, ls="--", lw=1.2, label=mark.label)
        if log:
            ax.set_yscale("log")
            ax.yaxis.set_major_formatter(lambda value, _: wording.number(value))
            ax.yaxis.set_minor_formatter(lambda *_: "")
        else:
            ax.set_ylim(bottom=0)
        if ticks:
            ax.set_xticks(list(ticks), list(ticks.values()))
            ax.margins(x=0.12)
        else:
            ax.set_xlim(left=0)
        ax.set_xlabel(units[0])
        ax.set_ylabel(units[1])
        ax.grid()
        _legend(figure, [ax], [*(line.label for line in found), *([mark.label] if mark else [])])
        return _plot(name, title, figure)


def _panels(title: str, heights: Sequence[float], legend: int = 0) -> tuple[Figure, list[Axes]]:
    wrapped = textwrap.fill(title, 52)
    height = sum(heights) + 0.7 + 0.2 * wrapped.count("\n") + 0.36 * ((legend + 1) // 2)
    figure = Figure((WIDTH, height), layout="constrained")
    figure.suptitle(wrapped, x=0.01, ha="left", fontsize=11, fontweight="bold")
    grid = figure.subplots(len(heights), squeeze=False, sharex=True, height_ratios=heights)
    return figure, [row[0] for row in grid]


def _value(ax: Axes, value: float, beside: float, at: int) -> None:
    """Write a bar's value beside it, legible over whatever line is there."""
    ax.annotate(
        wording.number(value),
        (beside, at),
        (6, 0),
        textcoords="offset points",
        va="center",
        bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1},
    )


def _rows(ax: Axes, heading: str, labels: Sequence[str]) -> None:
    ax.set_yticks(range(len(labels)), [textwrap.fill(label, LABEL) for label in labels])
    ax.tick_params(axis="y", length=0, labelsize=9)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.grid(axis="x")
    ax.set_title(heading, loc="right")


def _legend(figure: Figure, axes: Sequence[Axes], labels: Sequence[str]) -> None:
    entries: dict[str, Any] = {}
    for ax in axes:
        for handle, text in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(text, handle)
    shown = [textwrap.fill(text, LABEL + 4) for text in labels]
    figure.legend(
        [entries[text] for text in labels],
        shown,
        loc="outside lower left",
        ncols=2,
        frameon=False,
        fontsize=9,
    )


def _plot(name: str, title: str, figure: Figure) -> Plot:
    written = io.StringIO()
    with rc_context({"svg.hashsalt": name}):
        figure.savefig(written, format="svg", metadata={"Date": None})
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", written.getvalue(), flags=re.DOTALL)
    label = f'<svg role="img" aria-label="{title}"'.replace("&", "&amp;")
    return Plot(name, title, svg.replace("<svg", label, 1))
