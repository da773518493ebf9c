"""Conclusions, each computed from the numbers of this run: also where the gateway loses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from loadtests.bench.report import wording
from loadtests.bench.report.aims import Aim, by_models, headline
from loadtests.bench.report.palette import GATEWAY, order
from loadtests.bench.report.repeated import CHANCE, LEEWAY, MEMORY_LEEWAY, Repeated
from loadtests.bench.report.standings import Standing, standings
from loadtests.bench.report.statistics import (
    Cell,
    cells,
    cpu,
    cpu_by_group,
    limits,
    p50,
    p99,
    rate,
    ratio,
)
from loadtests.bench.results import Results

#: A share of the CPU time that others must not take, or absolute rates are not worth quoting.
QUIET = 0.05


def conclusions(results: Results, titles: dict[str, str]) -> list[str]:
    """Return what the scenario that the arms are judged by says."""
    chosen = headline(results)
    if chosen is None:
        return ["This run has no closed loop of singles: the architectures cannot be compared."]
    scenario, at = chosen
    found = {arm: cell for (point, arm), cell in cells(scenario).items() if point == at}
    gateway = found.get(GATEWAY)
    if gateway is None:
        return [f"The gateway was not measured in “{wording.label(scenario)}”."]
    said = [_against(gateway, found[arm], titles[arm]) for arm in order(found) if arm != GATEWAY]
    kept = ratio(gateway.rounds(rate), limits(scenario))
    if kept:
        said.append(
            f"The gateway handles {wording.times(kept)} the texts/s of bare ONNX Runtime processes"
            " that do nothing else on this machine."
        )
    if scenario.random_weights:
        said.append("These are models of random weights: their answers mean nothing.")
    return said


def _against(gateway: Cell, other: Cell, title: str) -> str:
    rates, tails = gateway.over(other, rate), gateway.over(other, p99)
    if rates is None or tails is None:
        return f"{title} gave no right answers to compare with."
    if rates.least > 1:
        said = f"The gateway handles {wording.times(rates)} the texts/s of {title}"
    elif rates.most < 1:
        said = f"The gateway loses to {title}: {wording.times(rates)} its texts/s"
    else:
        said = f"The gateway and {title} are level within the spread: {wording.times(rates)}"
    said += f", at {wording.times(tails)} its p99"
    costs = gateway.over(other, cpu)
    return said + (f" and {wording.times(costs)} its CPU time a request." if costs else ".")


def misses(results: Results, aims: list[Aim], titles: dict[str, str]) -> list[str]:
    """Return for each aim that is missed by how much it is, and what the numbers say of why."""
    said = []
    for aim in aims:
        if aim.spread and not aim.met:
            reasons = _reasons(results, aim, titles)
            text = f"{aim.named(titles)}: {wording.times(aim.spread)} instead of {aim.aim:g}"
            said.append(
                f"{text}, missed by {wording.percent(aim.off)}. {' '.join(reasons)}".strip()
            )
    return said


def _reasons(results: Results, aim: Aim, titles: dict[str, str]) -> Iterator[str]:
    if aim.arm == GATEWAY:
        yield _many(results, aim)
        return
    chosen = headline(results)
    if chosen is None:
        return
    scenario, at = chosen
    found = cells(scenario)
    gateway, other = found[at, GATEWAY], found[at, aim.arm]
    if aim.at_most and (middle := gateway.over(other, p50)):
        yield f"Its p50 is {wording.times(middle)} that of {titles[aim.arm]}."
        if middle.median < 1:
            yield (
                "So its answers are further apart: rows of like length share calls, and some are"
                " answered before others that came earlier."
            )
        return
    most = ratio(limits(scenario), other.rounds(rate))
    if most and most.median < aim.aim:
        yield (
            "It lies above the limit as measured: bare ONNX Runtime, without a server, does"
            f" {wording.times(most)} the texts/s of {titles[aim.arm]}."
        )
    groups = gateway.groups(cpu_by_group)
    total, costs = sum(groups.values()), gateway.over(other, cpu)
    if total and costs:
        parts = sorted(groups.items(), key=lambda item: -item[1])
        shares = [f"{value / total:.0%} {name}" for name, value in parts]
        yield (
            f"A request costs the gateway {wording.number(total)} ms of CPU time"
            f" ({wording.joined(shares)}), {wording.times(costs)} that of {titles[aim.arm]}."
        )


def _many(results: Results, aim: Aim) -> str:
    """Say what a request costs with one model, and with as many as the aim is of."""
    (scenario,) = (each for each in results.scenarios if each.name == aim.scenario)
    found = by_models(scenario)
    one, more = (found[models].groups(cpu_by_group) for models in (1, aim.models))
    parts = [
        f"{name} {wording.number(one[name])} → {wording.number(more[name])}"
        for name in sorted(more, key=more.__getitem__, reverse=True)
    ]
    return (
        "The same requests go to so many models: each has fewer that can share a call,"
        f" and a request costs more CPU time, in ms: {', '.join(parts)}."
    )


def losses(results: Results, titles: dict[str, str]) -> list[str]:
    """Return every measured quantity in which another arm does better than the gateway.

    Only where the rounds agree on it; one line a quantity and scenario.
    """
    lines: dict[tuple[str, str], list[Standing]] = {}
    for standing in standings(results):
        if standing.lost:
            lines.setdefault((standing.where, standing.quantity), []).append(standing)
    return [
        f"{where}, {quantity}: "
        + wording.joined([f"{wording.times(s.spread)} that of {titles[s.arm]}" for s in found])
        + "."
        for (where, quantity), found in lines.items()
    ]


def agreement(found: Sequence[Repeated], earlier: Results) -> str:
    """Say on how many ratios two runs agree, and what that means."""
    agree, meet = sum(each.agrees for each in found), sum(each.meets for each in found)
    apart = sorted(each.apart for each in found)
    half, most = (apart[int(share * (len(apart) - 1))] for share in (0.5, 0.9))
    return (
        f"The run before this one ({earlier.started}) measured {len(found)} of the same ratios:"
        f" on {agree} of them the two agree, that is, their medians are no further apart than the"
        f" rounds’ differences explain, all {len(found)} ratios in {1 - CHANCE:.0%} of such pairs"
        f" of runs, or than {LEEWAY:.0%} ({MEMORY_LEEWAY:.0%} for memory, of which a run has one"
        f" start). Half of the medians are within {half - 1:.0%} of each other, nine in ten within"
        f" {most - 1:.0%}, and the furthest {apart[-1]:.2f}× apart. On {meet} of the ratios the"
        " rounds of one run reach into those of the other."
    )


def cautions(results: Results, titles: dict[str, str]) -> list[str]:
    """Return what makes numbers of this run doubtful: errors, a busy machine, too few rounds."""
    said = []
    for scenario in results.scenarios:
        for (point, arm), cell in cells(scenario).items():
            if cell.errors:
                sent = cell.errors + cell.requests
                said.append(
                    f"{titles[arm]} failed {cell.errors:,} of {sent:,} requests"
                    f" ({cell.errors / sent:.1%}) in “{wording.at(scenario, point)}”;"
                    " rates count right answers only."
                )
    windows = [window for scenario in results.scenarios for window in scenario.windows]
    if windows:
        others = Cell(windows).share("others")
        if others > QUIET:
            said.append(_busy(results, titles, others))
        if len({window.round for window in windows}) == 1:
            said.append("There was one round only: nothing is known of the spread.")
    return said


def _busy(results: Results, titles: dict[str, str], others: float) -> str:
    """Say how much others used, and of whose time: where it differs, so do the rates."""
    said = f"Other programs used {others:.0%} of the CPU time that was used meanwhile"
    if chosen := headline(results):
        scenario, at = chosen
        found = {arm: cell for (point, arm), cell in cells(scenario).items() if point == at}
        shares = sorted((cell.share("others"), titles[arm]) for arm, cell in found.items())
        (least, first), (most, last) = shares[0], shares[-1]
        said += f", from {least:.0%} beside {first} to {most:.0%} beside {last}"
    return f"{said}. Rates are of what these left; CPU time a request tells more."
