"""Medians with their spread over rounds, ratios within rounds, percentiles over all rounds.

Machines drift: two numbers are compared within one round only, where their windows lay next to
each other, and the ratios of the rounds are what has a median and a spread.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from statistics import median
from typing import NamedTuple

from hdrh.histogram import HdrHistogram

from loadtests.bench.results import Scenario, Window

#: Groups of processes that are no part of an arm.
NOT_OF_THE_ARM = ("generator", "others")
PERCENTILES = (50.0, 90.0, 99.0, 99.9, 100.0)
MICROSECONDS = 1000  # to a millisecond
_NUMBER = re.compile(r"\d+(\.\d+)?")
Read = Callable[[Window], float | None]


class Spread(NamedTuple):
    """The median of some rounds, the least and the greatest."""

    median: float
    least: float
    most: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """Return the spread of one value a round; None without values."""
        return cls(median(values), min(values), max(values), len(values)) if values else None

    def scaled(self, unit: float) -> Spread:
        """Return it in another unit, given in this one."""
        return Spread(self.median / unit, self.least / unit, self.most / unit, self.rounds)


class Cell:
    """One arm at one point: its windows of all rounds."""

    def __init__(self, windows: Sequence[Window]) -> None:
        self.windows = windows

    @cached_property
    def percentiles(self) -> dict[float, float] | None:
        """Milliseconds by percentile, over all answers of all rounds; None without answers."""
        histograms = [window.latency.histogram for window in self.windows if window.latency]
        if not histograms:
            return None
        merged = HdrHistogram.decode(histograms[0])
        for histogram in histograms[1:]:
            merged.decode_and_add(histogram)
        found = merged.get_percentile_to_value_dict(PERCENTILES)
        return {at: value / MICROSECONDS for at, value in found.items()}

    @property
    def requests(self) -> int:
        """Return the requests of all rounds that were answered, and rightly."""
        return sum(window.requests for window in self.windows)

    @property
    def errors(self) -> int:
        """Return the others: refused, failed or cut off."""
        return sum(window.errors for window in self.windows)

    def spread(self, read: Read) -> Spread | None:
        """Return the spread of what `read` finds in each round."""
        return Spread.of(list(self.rounds(read).values()))

    def over(self, other: Cell, read: Read) -> Spread | None:
        """Return the spread of this cell's value ÷ the other's of the same round."""
        return ratio(self.rounds(read), other.rounds(read))

    def rounds(self, read: Read) -> dict[int, float]:
        """Return a value for each round that has one: the median where it has several windows."""
        found: dict[int, list[float]] = {}
        for window in self.windows:
            value = read(window)
            if value is not None:
                found.setdefault(window.round, []).append(value)
        return {number: median(values) for number, values in found.items()}

    def groups(self, read: Callable[[Window], Mapping[str, float]]) -> dict[str, float]:
        """Return the median over windows of each group of processes of the arm."""
        names = dict.fromkeys(name for window in self.windows for name in read(window))
        return {
            name: median(read(window).get(name, 0.0) for window in self.windows)
            for name in names
            if name not in NOT_OF_THE_ARM
        }

    def share(self, group: str) -> float:
        """Return a group's share of all CPU time that was used meanwhile: the median."""
        totals = [(w.cpu_seconds, sum(w.cpu_seconds.values())) for w in self.windows]
        return median([cpu.get(group, 0.0) / total for cpu, total in totals if total] or [0.0])


def ratio(above: Mapping[int, float], below: Mapping[int, float]) -> Spread | None:
    """Return the spread of the ratios of the rounds that both have."""
    common = [number for number in above if below.get(number)]
    return Spread.of([above[number] / below[number] for number in common])


def cells(scenario: Scenario) -> dict[tuple[str, str], Cell]:
    """Return the cell of each (point, arm)."""
    found: dict[tuple[str, str], list[Window]] = {}
    for window in scenario.windows:
        found.setdefault((window.point, window.arm), []).append(window)
    return {key: Cell(windows) for key, windows in found.items()}


def points(scenario: Scenario) -> list[str]:
    """Return its points: by number where they are numbers, else in the order of time."""
    found = list(dict.fromkeys(window.point for window in scenario.windows))
    if all(_NUMBER.match(point) for point in found):
        found.sort(key=number)
    return found


def number(point: str) -> float:
    """Return the number that a point begins with: of users, models, arrivals a second."""
    match = _NUMBER.match(point)
    if not match:
        raise ValueError(f"the point {point!r} begins with no number")
    return float(match[0])


def limits(scenario: Scenario) -> dict[int, float]:
    """Return the limit's best rate in each round."""
    found: dict[int, float] = {}
    for limit in scenario.limits:
        found[limit.round] = max(limit.rate, found.get(limit.round, 0.0))
    return found


def knees(scenario: Scenario, arm: str) -> dict[int, float]:
    """Return for each round the greatest rate that held the SLO without an error; 0 if none did."""
    if scenario.slo_ms is None:
        raise ValueError(f"{scenario.name} has no SLO")
    found: dict[int, float] = {}
    for window in scenario.windows:
        if window.arm == arm:
            held = window.latency is not None and not window.errors
            held = held and window.latency.p99 <= scenario.slo_ms  # type: ignore[union-attr]
            best = found.get(window.round, 0.0)
            found[window.round] = max(best, window.rate) if held else best
    return found


def rate(window: Window) -> float | None:
    """Texts a second."""
    return window.rate if window.requests else None


def p50(window: Window) -> float | None:
    """Milliseconds."""
    return window.latency.p50 if window.latency else None


def p99(window: Window) -> float | None:
    """Milliseconds."""
    return window.latency.p99 if window.latency else None


def cpu(window: Window) -> float | None:
    """CPU seconds of the arm for 1,000 requests: the same as milliseconds a request."""
    used = cpu_by_group(window)
    return sum(used.values()) if used else None


def cpu_by_group(window: Window) -> dict[str, float]:
    """Return the same by group of processes of the arm."""
    if not window.requests:
        return {}
    return {
        name: seconds * 1000 / window.requests
        for name, seconds in window.cpu_seconds.items()
        if name not in NOT_OF_THE_ARM
    }


def pss(window: Window) -> float | None:
    """Bytes of memory, shared pages divided among those who share them."""
    return _total(window.pss_bytes)


def rss(window: Window) -> float | None:
    """Bytes of memory, shared pages counted for each process that has them."""
    return _total(window.rss_bytes)


def seconds(window: Window) -> float | None:
    """Return what a start took."""
    return window.seconds


def _total(memory: Mapping[str, int]) -> float | None:
    used = [count for name, count in memory.items() if name not in NOT_OF_THE_ARM]
    return float(sum(used)) if used else None
