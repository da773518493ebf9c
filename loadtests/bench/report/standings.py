"""The gateway beside each other arm, in every scenario and every quantity that was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from loadtests.bench.report import wording
from loadtests.bench.report.palette import GATEWAY, order
from loadtests.bench.report.statistics import (
    Read,
    Spread,
    cells,
    cpu,
    knees,
    p99,
    pss,
    rate,
    ratio,
    seconds,
)
from loadtests.bench.results import Kind, Results, Scenario


class Quantity(NamedTuple):
    """Something that is compared, and whether more of it is better."""

    name: str
    read: Read
    more: bool


RATE = Quantity("texts/s", rate, True)
P99 = Quantity("p99", p99, False)
CPU = Quantity("CPU time a request", cpu, False)
MEMORY = Quantity("memory (PSS)", pss, False)
START = Quantity("seconds to the first answer", seconds, False)
CLOSED = (RATE, P99, CPU, MEMORY)
#: At a given rate of arrivals everybody handles the same texts/s, or has errors or a queue.
OPEN = (P99, CPU)
#: What does not change with the machine's speed: all that arms measured minutes apart can share.
STEADY = (MEMORY,)
QUANTITIES: dict[Kind, Sequence[Quantity]] = {
    "closed": CLOSED,
    "open": OPEN,
    "scaling": CLOSED,
    "neighbour": (RATE, P99),
    "rollout": (RATE, P99),
    "soak": CLOSED,
    "start": (START,),
}


class Standing(NamedTuple):
    """The gateway's value ÷ another arm's of the same round."""

    where: str
    quantity: str
    more: bool
    arm: str
    spread: Spread

    @property
    def lost(self) -> bool:
        """Whether the other arm does better in every round."""
        return self.spread.most < 1 if self.more else self.spread.least > 1


def standings(results: Results) -> Iterator[Standing]:
    """Return all of them, in the order of the report."""
    for scenario in results.scenarios:
        if scenario.kind == "knee":
            yield from _knees(scenario)
            continue
        found = cells(scenario)
        for point in dict.fromkeys(point for point, _ in found):
            gateway = found.get((point, GATEWAY))
            for quantity in _quantities(scenario) if gateway else ():
                for arm in order(arm for at, arm in found if at == point):
                    spread = gateway and gateway.over(found[point, arm], quantity.read)
                    if arm != GATEWAY and spread:
                        where = wording.at(scenario, point)
                        yield Standing(where, quantity.name, quantity.more, arm, spread)


def _quantities(scenario: Scenario) -> Sequence[Quantity]:
    found = OPEN if scenario.arrivals else QUANTITIES[scenario.kind]
    return [each for each in found if not scenario.apart or each in STEADY]


def _knees(scenario: Scenario) -> Iterator[Standing]:
    own = knees(scenario, GATEWAY)
    for arm in order(window.arm for window in scenario.windows):
        spread = ratio(own, knees(scenario, arm))
        if arm != GATEWAY and spread:
            yield Standing(wording.label(scenario), "rate at the knee", True, arm, spread)
