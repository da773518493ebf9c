"""What the comparison should show, and whether this run shows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from loadtests.bench.report import wording
from loadtests.bench.report.palette import GATEWAY
from loadtests.bench.report.statistics import Cell, Spread, cells, number, p99, points, rate
from loadtests.bench.results import Results, Scenario

#: How many times each arm's texts/s the gateway should handle, at a lower p99.
RATES = {
    "flask_transformers": 3.0,
    "tornado_torch": 2.2,
    "tornado_onnx": 1.4,
    "triton_ensemble": 1.5,
}
MODELS = (21, 100)
#: The least share of one model's texts/s that many models should handle at equal load.
KEPT = 0.9
USERS = "64"
REAL = "minilm"


class Aim(NamedTuple):
    """One aim, with what was measured of it; `spread` is None where nothing was.

    `arm` is whom the gateway is compared with; the gateway itself for numbers of `models`, as
    measured in `scenario`. `at_most` says that less is better: then `aim` must not be reached.
    """

    name: str
    aim: float
    at_most: bool
    arm: str
    spread: Spread | None
    errors: int = 0
    models: int = 1
    scenario: str = ""

    @property
    def met(self) -> bool:
        """Whether the median reaches it."""
        return self.spread is not None and self._holds(self.spread.median)

    @property
    def settled(self) -> bool:
        """Whether every round says the same."""
        spread = self.spread
        return spread is not None and self._holds(spread.least) == self._holds(spread.most)

    @property
    def off(self) -> float:
        """By how much of the aim the median differs from it: 0.1 is a tenth."""
        return abs(self.spread.median / self.aim - 1) if self.spread else 0.0

    @property
    def verdict(self) -> str:
        """Say whether and by how much it is met."""
        if self.spread is None:
            return "not measured"
        said = "met" if self.met else "missed"
        said += f" by {wording.percent(self.off)}"
        if not self.settled:
            said += ", not in every round"
        return said + (f"; {self.errors:,} errors" if self.errors else "")

    def named(self, titles: Mapping[str, str]) -> str:
        """Return what it is of, for people."""
        return f"Gateway’s {self.name.replace(self.arm, titles[self.arm])}"

    def _holds(self, value: float) -> bool:
        return value < self.aim if self.at_most else value >= self.aim


def headline(results: Results) -> tuple[Scenario, str] | None:
    """Return the scenario and the point that the arms are judged by.

    That is closed singles, with real weights before random ones, by 64 users or else by the most.
    """
    found = [s for s in results.scenarios if s.kind == "closed" and s.rows == 1 and s.windows]
    if not found:
        return None
    scenario = min(found, key=lambda s: s.models != REAL)
    at = points(scenario)
    return scenario, USERS if USERS in at else at[-1]


def judge(results: Results) -> list[Aim]:
    """Return every aim."""
    return [*_side_by_side(results), *_many_models(results)]


def _side_by_side(results: Results) -> Iterator[Aim]:
    chosen = headline(results)
    found: dict[str, Cell] = {}
    if chosen and chosen[0].models == REAL:
        scenario, at = chosen
        found = {arm: cell for (point, arm), cell in cells(scenario).items() if point == at}
    gateway = found.get(GATEWAY)
    for arm, aim in RATES.items():
        faster = lower = None
        errors = 0
        if gateway and arm in found:
            faster, lower = (gateway.over(found[arm], read) for read in (rate, p99))
            errors = gateway.errors + found[arm].errors
        yield Aim(f"texts/s ÷ {arm}", aim, False, arm, faster, errors)
        yield Aim(f"p99 ÷ {arm}", 1.0, True, arm, lower, errors)


def by_models(scenario: Scenario) -> dict[int, Cell]:
    """Return what the gateway did with each number of models."""
    found = cells(scenario)
    return {int(number(point)): cell for (point, arm), cell in found.items() if arm == GATEWAY}


def _many_models(results: Results) -> Iterator[Aim]:
    scalings = [each for each in results.scenarios if each.kind == "scaling"]
    for models in MODELS:
        measured = [aim for each in scalings if (aim := _kept(each, models))]
        yield from measured or [Aim(_many(models), KEPT, False, GATEWAY, None)]


def _kept(scenario: Scenario, models: int) -> Aim | None:
    """Return what many models keep of one's rate; None where they were not both measured."""
    found = by_models(scenario)
    many, one = found.get(models), found.get(1)
    if not (many and one):
        return None
    name, errors = f"{_many(models)}, {wording.load(scenario)}", many.errors + one.errors
    kept = many.over(one, rate)
    return Aim(name, KEPT, False, GATEWAY, kept, errors, models, scenario.name)


def _many(models: int) -> str:
    return f"texts/s with {models} models ÷ with one"


def bound(aim: Aim) -> str:
    """Say what must hold."""
    return f"{'<' if aim.at_most else '≥'} {wording.number(aim.aim)}"
