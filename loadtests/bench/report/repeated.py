"""Two runs of the same scenarios: whether they agree on every ratio."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from loadtests.bench.report import wording
from loadtests.bench.report.aims import judge
from loadtests.bench.report.palette import GATEWAY
from loadtests.bench.report.standings import MEMORY, standings
from loadtests.bench.report.statistics import Spread, cells, limits, rate, ratio
from loadtests.bench.results import Results

#: What is as good as equal.
LEEWAY = 0.03
#: The same for memory: it hardly differs from round to round, but it does from start to start,
#: of which a run has one (two runs of the same code were 3.3 % apart).
MEMORY_LEEWAY = 0.05


class Repeated(NamedTuple):
    """One ratio: where, of what, to which arm, and what each of two runs found of it.

    `arm` is the gateway itself where it is compared with itself or with the limit.
    """

    where: str
    quantity: str
    arm: str
    now: Spread
    earlier: Spread

    @property
    def rounds(self) -> int:
        """How many rounds the run has that has fewer: one round tells of no spread."""
        return min(self.now.rounds, self.earlier.rounds)

    @property
    def agrees(self) -> bool:
        """Whether the spreads meet."""
        lower, upper = sorted((self.now, self.earlier), key=lambda spread: spread.most)
        leeway = MEMORY_LEEWAY if self.quantity == MEMORY.name else LEEWAY
        return upper.least <= lower.most * (1 + leeway)


def repeated(now: Results, earlier: Results) -> list[Repeated]:
    """Return every ratio that both runs have, with a spread, in the order of the report."""
    before = {tuple(key): spread for *key, spread in _ratios(earlier)}
    both = [
        Repeated(where, quantity, arm, spread, before[where, quantity, arm])
        for where, quantity, arm, spread in _ratios(now)
        if (where, quantity, arm) in before
    ]
    return [each for each in both if each.rounds > 1]


def _ratios(results: Results) -> Iterator[tuple[str, str, str, Spread]]:
    for standing in standings(results):
        yield standing.where, standing.quantity, standing.arm, standing.spread
    for aim in judge(results):
        if aim.spread and aim.arm == GATEWAY:  # the others are among the standings
            yield "", aim.name, GATEWAY, aim.spread
    for scenario in (each for each in results.scenarios if each.kind == "closed"):
        for (point, arm), cell in cells(scenario).items():
            kept = ratio(cell.rounds(rate), limits(scenario)) if arm == GATEWAY else None
            if kept:
                yield wording.at(scenario, point), "texts/s ÷ bare ONNX Runtime", GATEWAY, kept
