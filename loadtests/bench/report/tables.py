"""The tables of the report, as text; page and Markdown show the same ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from loadtests.bench.report import wording
from loadtests.bench.report.aims import Aim, bound, headline
from loadtests.bench.report.palette import GATEWAY, LOOKS, order
from loadtests.bench.report.repeated import Repeated
from loadtests.bench.report.statistics import (
    Cell,
    Spread,
    cells,
    cpu,
    knees,
    limits,
    number,
    p99,
    points,
    pss,
    rate,
    ratio,
    rss,
    seconds,
)
from loadtests.bench.results import Kind, Results, Scenario

POINTS: dict[Kind, str] = {
    "closed": "users",
    "open": "arrivals",
    "knee": "arrivals",
    "scaling": "models",
    "neighbour": "neighbour",
    "start": "start",
    "rollout": "part",
    "soak": "part",
}
Titles = dict[str, str]


class Table(NamedTuple):
    """A title, a head and rows of text; the first column names the row."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def architectures(results: Results, titles: Titles) -> Table:
    """Return the rows of the published comparison, and of every other arm."""
    head = (
        *("architecture", "texts/s", "p50 ms", "p99 ms", "CPU s / 1,000 requests"),
        *("memory (PSS) MiB", "÷ bare ONNX Runtime", "gateway’s texts/s ÷ its", "errors"),
    )
    chosen = headline(results)
    if chosen is None:
        return Table("No closed loop of singles was measured", head, [])
    scenario, at = chosen
    found = {arm: cell for (point, arm), cell in cells(scenario).items() if point == at}
    rows = []
    for arm in order([*LOOKS, *found]):
        if arm not in found:
            rows.append((titles[arm], "not measured", *[wording.ABSENT] * (len(head) - 2)))
            continue
        cell = found[arm]
        against = found[GATEWAY].over(cell, rate) if GATEWAY in found else None
        rows.append(
            (
                titles[arm],
                wording.spread(cell.spread(rate)),
                *_percentiles(cell, 50.0, 99.0),
                wording.spread(cell.spread(cpu)),
                wording.spread(cell.spread(pss), wording.MIB),
                wording.times(ratio(cell.rounds(rate), limits(scenario))),
                wording.ABSENT if arm == GATEWAY else wording.times(against),
                f"{cell.errors:,}",
            )
        )
    return Table(wording.at(scenario, at), head, rows)


def aims(found: Sequence[Aim], titles: Titles) -> Table:
    """Return every aim with what was measured of it."""
    rows = [
        (
            aim.named(titles),
            bound(aim),
            wording.times(aim.spread),
            aim.verdict,
        )
        for aim in found
    ]
    return Table("Aims", ("quantity", "aim", "measured", "verdict"), rows)


def runs(found: Sequence[Repeated], titles: Titles) -> Table:
    """Return every ratio of two runs, those on which they do not agree first."""
    rows = [
        (
            ", ".join(filter(None, [each.where, each.quantity])),
            wording.ABSENT if each.arm == GATEWAY else titles[each.arm],
            wording.times(each.now),
            wording.times(each.earlier),
            f"{each.apart:.2f}×",
            f"{each.allowed:.2f}×",
            "yes" if each.agrees else "no",
        )
        for each in sorted(found, key=lambda each: each.allowed / each.apart)
    ]
    head = (
        *("gateway’s", "÷ that of", "this run", "the run before"),
        *("apart", "by chance up to", "agree"),
    )
    return Table("Ratios of two runs", head, rows)


def windows(scenario: Scenario, titles: Titles) -> list[Table]:
    """Return the tables of one scenario."""
    if not scenario.windows:
        return []
    title = wording.label(scenario)
    if scenario.kind == "start":
        return [_starts(scenario, titles)]
    special = {"knee": _knees, "scaling": _scaling, "neighbour": _neighbours}
    found = [special[scenario.kind](scenario, titles)] if scenario.kind in special else []
    rows = [
        (
            titles[arm],
            point,
            wording.spread(cell.spread(rate)),
            *_percentiles(cell, 50.0, 90.0, 99.0, 99.9, 100.0),
            wording.spread(cell.spread(cpu)),
            wording.spread(cell.spread(pss), wording.MIB),
            wording.spread(cell.spread(rss), wording.MIB),
            f"{cell.errors:,} of {cell.errors + cell.requests:,}",
        )
        for point, arm, cell in _walk(scenario)
    ]
    head = (
        *("arm", POINTS[scenario.kind], "texts/s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms"),
        *("most ms", "CPU s / 1,000 requests", "PSS MiB", "RSS MiB", "errors"),
    )
    return [*found, Table(f"All windows: {title}", head, rows)]


def _knees(scenario: Scenario, titles: Titles) -> Table:
    own = knees(scenario, GATEWAY)
    rows = []
    for arm in order(window.arm for window in scenario.windows):
        held = knees(scenario, arm)
        spread = None if arm == GATEWAY else ratio(own, held)
        against = wording.times(spread)
        if spread and spread.rounds < len(held):
            against += f", {spread.rounds} of {len(held)} rounds"
        rows.append((titles[arm], wording.spread(Spread.of(list(held.values()))), against))
    head = ("arm", f"texts/s at p99 ≤ {wording.number(scenario.slo_ms)} ms", "gateway’s ÷ its")
    return Table(f"Knees: {wording.label(scenario)}", head, rows)


def _scaling(scenario: Scenario, titles: Titles) -> Table:
    found, at = cells(scenario), points(scenario)
    rows = []
    for point, arm, cell in _walk(scenario):
        base, further = found.get((at[0], arm)), number(point) - number(at[0])
        if base and further:
            few, many = base.rounds(pss), cell.rounds(pss)
            added = Spread.of([(many[r] - few[r]) / further for r in many if r in few])
            kept = [wording.times(cell.over(base, read)) for read in (rate, p99)]
            rows.append((titles[arm], point, *kept, wording.spread(added, wording.MIB)))
    head = (
        *("arm", "models", f"texts/s ÷ with {at[0]}", f"p99 ÷ with {at[0]}"),
        "PSS MiB a further model",
    )
    return Table(f"Many models: {wording.label(scenario)}", head, rows)


def _neighbours(scenario: Scenario, titles: Titles) -> Table:
    found = cells(scenario)
    rows = []
    for arm in order(arm for _, arm in found):
        alone, beside = found.get(("alone", arm)), found.get(("beside", arm))
        if alone and beside:
            spreads = [beside.over(alone, read) for read in (p99, rate)]
            rows.append((titles[arm], *map(wording.times, spreads)))
    head = ("arm", "p99 beside ÷ alone", "texts/s beside ÷ alone")
    return Table(f"Singles beside batches: {wording.label(scenario)}", head, rows)


def _starts(scenario: Scenario, titles: Titles) -> Table:
    found = cells(scenario)
    rows = []
    for point, arm, cell in _walk(scenario):
        own = found.get((point, GATEWAY))
        against = own.over(cell, seconds) if own and arm != GATEWAY else None
        rows.append(
            (titles[arm], point, wording.spread(cell.spread(seconds)), wording.times(against))
        )
    head = ("arm", "start", "seconds to the first right answer", "gateway’s ÷ its")
    return Table(wording.label(scenario), head, rows)


def _walk(scenario: Scenario) -> Iterator[tuple[str, str, Cell]]:
    found = cells(scenario)
    walk = [
        (point, arm, found[point, arm])
        for point in points(scenario)
        for arm in order(arm for at, arm in found if at == point)
    ]
    if scenario.kind == "knee":  # every arm has rates of its own
        arms = order(arm for _, arm in found)
        walk.sort(key=lambda item: arms.index(item[1]))
    yield from walk


def _percentiles(cell: Cell, *at: float) -> list[str]:
    found = cell.percentiles
    return [wording.number(found[each]) if found else wording.ABSENT for each in at]


def agreements(results: Results, titles: Titles) -> Table:
    """Return how every arm's answers compared with the reference's."""
    rows = [
        (titles.get(a.arm, a.arm), f"{a.models:,}", f"{a.answers:,}", f"{a.difference:.1e}")
        for a in results.agreements
    ]
    head = ("arm", "models", "answers compared", "largest difference of a number")
    return Table("Answers before measuring", head, rows)


def generators(results: Results) -> Table:
    """Return which program sent the load, and what it and others took of the CPU time."""
    rows = [
        (
            wording.label(scenario),
            scenario.generator,
            *(f"{Cell(scenario.windows).share(group):.1%}" for group in ("generator", "others")),
        )
        for scenario in results.scenarios
        if any(window.cpu_seconds for window in scenario.windows)
    ]
    head = ("scenario", "generator", "its share of the CPU time used", "other programs’")
    return Table("Load generators", head, rows)
