"""Numbers as people read them: three digits, with the spread of the rounds beside them."""

from __future__ import annotations

from loadtests.bench.report.statistics import Spread
from loadtests.bench.results import Scenario

ABSENT = "–"
MIB = 1 << 20
_THREE_DIGITS = 100
_PERCENT = 0.01


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with so many significant digits, or all those before the point."""
    if value is None:
        return ABSENT
    if abs(value) >= _THREE_DIGITS:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def spread(value: Spread | None, unit: float = 1.0) -> str:
    """Return `262 (244 to 275)` in a unit; one round has no spread."""
    if value is None:
        return ABSENT
    middle, *ends = map(number, value.scaled(unit)[:3])
    return middle if value.rounds == 1 else f"{middle} ({ends[0]} to {ends[1]})"


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


def where(scenario: Scenario, point: str) -> str:
    """Return what a point of a scenario is called."""
    nouns = {"closed": " user", "scaling": " model", "start": " model"}
    noun = nouns.get(scenario.kind, "")
    return point + noun + ("s" if noun and point != "1" else "")


def load(scenario: Scenario) -> str:
    """Return what load many models are under."""
    return f"{number(scenario.arrivals)} arrivals/s" if scenario.arrivals else "closed loop"


def at(scenario: Scenario, point: str) -> str:
    """Return a scenario's label with the point, where its title does not name just that already."""
    named = where(scenario, point)
    said = named in scenario.title and scenario.kind != "neighbour"
    return ", ".join([label(scenario), *([named] if not said else [])])


def percent(share: float) -> str:
    """Return a share in percent; what rounds to nothing keeps a digit."""
    return f"{share:.0%}" if not 0 < share < _PERCENT else f"{share:.1%}"


def joined(parts: list[str]) -> str:
    """Return `a, b and c`."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))
