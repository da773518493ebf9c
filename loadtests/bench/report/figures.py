"""Which drawings a run has: by the kind of each scenario."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from loadtests.bench.report import plots, wording
from loadtests.bench.report.palette import groups, look, order
from loadtests.bench.report.plots import Bar, Line, Mark, Plot
from loadtests.bench.report.statistics import (
    Cell,
    Read,
    Spread,
    cells,
    cpu_by_group,
    knees,
    limits,
    number,
    p99,
    points,
    pss,
    rate,
    seconds,
)
from loadtests.bench.results import Kind, Results, Scenario

TEXTS, MILLISECONDS = "texts/s", "p99 latency, ms"
CPU, MEMORY = "CPU time by group of processes", "Memory by group of processes"
CPU_UNIT, MEMORY_UNIT = "CPU ms a request", "PSS, MiB"
STAGES, STAGES_UNIT = "Stages of a request in the gateway", "mean of each, ms"
#: Less than this share of the arrivals answered: the arm could not keep up.
KEPT_UP = 0.95
#: What is drawn over models or time: file, title, unit, what is read and what it is divided by.
SERIES: tuple[tuple[str, str, str, Read, float], ...] = (
    ("rate", "Rate", TEXTS, rate, 1),
    ("p99", "Latency", MILLISECONDS, p99, 1),
    ("memory", "Memory", MEMORY_UNIT, pss, wording.MIB),
)
Titles = Mapping[str, str]


def draw(results: Results, titles: Titles) -> dict[str, list[Plot]]:
    """Return the drawings of each scenario by its name."""
    return {
        scenario.name: list(KINDS[scenario.kind](scenario, titles)) if scenario.windows else []
        for scenario in results.scenarios
    }


def _closed(scenario: Scenario, titles: Titles) -> Iterator[Plot]:
    yield from _bars(scenario, titles, "rate", "Rate", TEXTS, rate, limited=True)
    yield from _bars(scenario, titles, "p99", "Latency", MILLISECONDS, p99)
    yield from _stacks(scenario, titles, "cpu", CPU, CPU_UNIT, _cpu)
    yield from _stacks(scenario, titles, "memory", MEMORY, MEMORY_UNIT, _memory)
    yield from _stacks(scenario, titles, "stages", STAGES, STAGES_UNIT, _stages)


def _open(scenario: Scenario, titles: Titles) -> Iterator[Plot]:
    yield from _curve(scenario, titles)
    yield from _stacks(scenario, titles, "cpu", CPU, CPU_UNIT, _cpu)


def _knee(scenario: Scenario, titles: Titles) -> Iterator[Plot]:
    arms = order(window.arm for window in scenario.windows)
    spreads = {arm: Spread.of(list(knees(scenario, arm).values())) for arm in arms}
    found = [Bar(titles[arm], look(arm).colour, value) for arm, value in spreads.items() if value]
    held = f"highest rate with p99 ≤ {wording.number(scenario.slo_ms)} ms, {TEXTS}"
    title = f"Knee: {wording.label(scenario)}"
    yield plots.bars(f"{scenario.name}-knee", title, held, {"": found})
    yield from _curve(scenario, titles)


def _scaling(scenario: Scenario, titles: Titles) -> Iterator[Plot]:
    ticks = [f"{number(point):g}" for point in points(scenario)]
    yield from _series(scenario, titles, "by number of models", "models", ticks)
    yield from _stacks(scenario, titles, "groups", MEMORY, MEMORY_UNIT, _memory, every=True)
    yield from _stacks(scenario, titles, "stages", STAGES, STAGES_UNIT, _stages, every=True)


def _soak(scenario: Scenario, titles: Titles) -> Iterator[Plot]:
    yield from _series(scenario, titles, "over time", "part of the soak", points(scenario))


def _neighbour(scenario: Scenario, titles: Titles) -> Iterator[Plot]:
    yield from _bars(scenario, titles, "p99", "Singles' latency", MILLISECONDS, p99)


def _start(scenario: Scenario, titles: Titles) -> Iterator[Plot]:
    unit = "seconds to the first right answer"
    yield from _bars(scenario, titles, "start", "Start", unit, seconds)


def _rollout(scenario: Scenario, titles: Titles) -> Iterator[Plot]:
    yield from _bars(scenario, titles, "p99", "Latency", MILLISECONDS, p99)


KINDS: dict[Kind, Callable[[Scenario, Titles], Iterator[Plot]]] = {
    "closed": _closed,
    "open": _open,
    "knee": _knee,
    "scaling": _scaling,
    "neighbour": _neighbour,
    "start": _start,
    "rollout": _rollout,
    "soak": _soak,
}


def _bars(
    scenario: Scenario,
    titles: Titles,
    name: str,
    title: str,
    unit: str,
    read: Read,
    *,
    limited: bool = False,
) -> Iterator[Plot]:
    found = cells(scenario)
    panels: dict[str, list[Bar]] = {}
    for point in points(scenario):
        for arm in order(arm for at, arm in found if at == point):
            value = found[point, arm].spread(read)
            if value:
                bar = Bar(titles[arm], look(arm).colour, value)
                panels.setdefault(wording.where(scenario, point), []).append(bar)
    best = Spread.of(list(limits(scenario).values())) if limited else None
    marks = {each: Mark("bare ONNX Runtime", best.median) for each in panels} if best else {}
    if panels:
        title = f"{title}: {wording.label(scenario)}"
        yield plots.bars(f"{scenario.name}-{name}", title, unit, panels, marks)


def _stacks(
    scenario: Scenario,
    titles: Titles,
    name: str,
    title: str,
    unit: str,
    read: Callable[[Cell], Mapping[str, float]],
    *,
    every: bool = False,
) -> Iterator[Plot]:
    """Draw the parts that each arm's values are made of, at `every` point or at the last one."""
    found = cells(scenario)
    panels: dict[str, dict[str, Mapping[str, float]]] = {}
    for point in points(scenario) if every else points(scenario)[-1:]:
        for arm in order(arm for at, arm in found if at == point):
            parts = read(found[point, arm])
            if parts:
                panels.setdefault(wording.where(scenario, point), {})[titles[arm]] = parts
    if panels:
        colours = groups(parts for stacked in panels.values() for parts in stacked.values())
        title = f"{title}: {wording.label(scenario)}"
        yield plots.stacks(f"{scenario.name}-{name}", title, unit, panels, colours)


def _curve(scenario: Scenario, titles: Titles) -> Iterator[Plot]:
    found = cells(scenario)
    curves = []
    for arm in order(arm for _, arm in found):
        seen = [
            (found[point, arm], number(point))
            for point in points(scenario)
            if (point, arm) in found
        ]
        kept = [
            (x, y, x.median < arrivals * scenario.rows * KEPT_UP or bool(cell.errors))
            for cell, arrivals in seen
            if (x := cell.spread(rate)) and (y := cell.spread(p99))
        ]
        if kept:
            xs, ys, doubtful = zip(*kept, strict=True)
            shown = look(arm)
            middles = [x.median for x in xs]
            curves.append(Line(titles[arm], shown.colour, shown.marker, middles, ys, doubtful))
    if curves:
        mark = None
        if scenario.slo_ms is not None:
            mark = Mark(f"SLO, {wording.number(scenario.slo_ms)} ms", scenario.slo_ms)
        title = f"Latency by rate: {wording.label(scenario)}"
        units = (f"answered, {TEXTS}", MILLISECONDS)
        yield plots.lines(f"{scenario.name}-curve", title, units, curves, mark, log=True)


def _series(
    scenario: Scenario, titles: Titles, by: str, axis: str, ticks: Sequence[str]
) -> Iterator[Plot]:
    found, at = cells(scenario), points(scenario)
    named = {float(place): tick for place, tick in enumerate(ticks)}
    for name, what, unit, read, scale in SERIES:
        curves = []
        for arm in order(arm for _, arm in found):
            seen = [
                (float(place), spread.scaled(scale))
                for place, point in enumerate(at)
                if (point, arm) in found and (spread := found[point, arm].spread(read))
            ]
            if seen:
                xs, ys = zip(*seen, strict=True)
                curves.append(Line(titles[arm], look(arm).colour, look(arm).marker, xs, ys))
        if curves:
            title = f"{what} {by}: {wording.label(scenario)}"
            yield plots.lines(f"{scenario.name}-{name}", title, (axis, unit), curves, ticks=named)


def _cpu(cell: Cell) -> dict[str, float]:
    return cell.groups(cpu_by_group)


def _memory(cell: Cell) -> dict[str, float]:
    used = cell.groups(lambda window: window.pss_bytes)
    return {name: value / wording.MIB for name, value in used.items()}


def _stages(cell: Cell) -> dict[str, float]:
    return cell.groups(lambda window: window.stage_ms)
