"""Numbers as people read them: three digits, with the spread of the rounds beside them."""

from __future__ import annotations

from loadtests.bench.report.statistics import Spread
from loadtests.bench.results import Scenario

ABSENT = "–"
MIB = 1 << 20
_THREE_DIGITS = 100


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with so many significant digits, or all those before the point."""
    if value is None:
        return ABSENT
    if abs(value) >= _THREE_DIGITS:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def spread(value: Spread | None, scale: float = 1.0) -> str:
    """Return `262 (244 to 275)`; one round has no spread."""
    if value is None:
        return ABSENT
    middle = number(value.median / scale)
    if value.rounds == 1:
        return middle
    return f"{middle} ({number(value.least / scale)} to {number(value.most / scale)})"


def times(value: Spread | None) -> str:
    """Return `2.31× (2.20 to 2.40)`."""
    if value is None:
        return ABSENT
    middle = f"{value.median:.2f}×"
    if value.rounds == 1:
        return middle
    return f"{middle} ({value.least:.2f} to {value.most:.2f})"


def label(scenario: Scenario) -> str:
    """Return a scenario's title, labelled where its weights are random."""
    return scenario.title + (" – random weights, speed only" if scenario.random_weights else "")


def joined(parts: list[str]) -> str:
    """Return `a, b and c`."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))
