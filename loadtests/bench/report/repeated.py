"""Two runs of the same scenarios: whether they agree on every ratio.

Least and greatest of a few rounds tell how far rounds differ, not how far two runs may: by chance
alone, all five rounds of one run lie beyond all five of another in 2 of 252 cases (as many as there
are ways to choose five of ten), which of a hundred ratios is nearly one. So each ratio is held
against what chance explains, over all ratios together.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import NormalDist, mean
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
#: In so many pairs of runs chance may part one of all ratios further than is allowed.
CHANCE = 0.05
#: The mean range of so many normal values, in standard deviations (d2 of control charts; Tippett,
#: Biometrika 17, 1925): a range divided by it estimates the deviation.
RANGES = {2: 1.128, 3: 1.693, 4: 2.059, 5: 2.326, 6: 2.534, 7: 2.704, 8: 2.847}


class Ratio(NamedTuple):
    """One ratio of a run. Those of one `scenario` and `quantity` have the same noise.

    `arm` is the gateway itself where it is compared with itself or with the limit.
    """

    scenario: str
    where: str
    quantity: str
    arm: str
    spread: Spread


class Repeated(NamedTuple):
    """One ratio: where, of what, to which arm, and what each of two runs found of it.

    `allowed` is the greatest factor between the medians that still counts as agreement.
    """

    where: str
    quantity: str
    arm: str
    now: Spread
    earlier: Spread
    allowed: float

    @property
    def apart(self) -> float:
        """The factor between the medians, at least 1."""
        one, other = sorted((self.now.median, self.earlier.median))
        return other / one if one else math.inf

    @property
    def agrees(self) -> bool:
        """Whether chance explains that."""
        return self.apart <= self.allowed or self.now.median == self.earlier.median

    @property
    def meets(self) -> bool:
        """Whether a round of one run lies within those of the other."""
        lower, upper = sorted((self.now, self.earlier), key=lambda spread: spread.most)
        return upper.least <= lower.most


def compare(now: Results, earlier: Results) -> list[Repeated]:
    """Return every ratio that both runs have, with a spread, in the order of the report."""
    before = {found[:-1]: found.spread for found in _ratios(earlier)}
    both = [
        (found, before[found[:-1]])
        for found in _ratios(now)
        if found[:-1] in before and min(found.spread.rounds, before[found[:-1]].rounds) > 1
    ]
    alike = defaultdict[tuple[str, str], list[Spread]](list)
    for found, spread in both:
        alike[found.scenario, found.quantity] += [found.spread, spread]
    deviations = {key: deviation(spreads) for key, spreads in alike.items()}
    return [
        Repeated(
            found.where,
            found.quantity,
            found.arm,
            found.spread,
            spread,
            max(
                1 + (MEMORY_LEEWAY if found.quantity == MEMORY.name else LEEWAY),
                allowed(
                    deviations[found.scenario, found.quantity], found.spread, spread, len(both)
                ),
            ),
        )
        for found, spread in both
    ]


def deviation(spreads: Sequence[Spread]) -> float:
    """Return the standard deviation of a round's ratio, as a logarithm, of all of these spreads."""
    found = [
        math.log(spread.most / spread.least) / RANGES[min(spread.rounds, max(RANGES))]
        for spread in spreads
        if spread.least > 0  # a knee of nothing has no logarithm
    ]
    return mean(found) if found else 0.0


def allowed(noise: float, now: Spread, earlier: Spread, ratios: int) -> float:
    """Return the factor that chance leaves between two medians.

    One of all `ratios` exceeds it with a probability of CHANCE (Bonferroni). `noise` is a round's
    deviation; a median's variance is π/2 times a mean's.
    """
    error = noise * math.sqrt(math.pi / 2 * (1 / now.rounds + 1 / earlier.rounds))
    return math.exp(NormalDist().inv_cdf(1 - CHANCE / ratios / 2) * error)


def _ratios(results: Results) -> Iterator[Ratio]:
    for standing in standings(results):
        where, quantity = standing.where, standing.quantity
        yield Ratio(standing.scenario, where, quantity, standing.arm, standing.spread)
    for aim in judge(results):
        if aim.spread and aim.arm == GATEWAY:  # the others are among the standings
            yield Ratio(aim.scenario, "", aim.name, GATEWAY, aim.spread)
    for scenario in (each for each in results.scenarios if each.kind == "closed"):
        for (point, arm), cell in cells(scenario).items():
            kept = ratio(cell.rounds(rate), limits(scenario)) if arm == GATEWAY else None
            if kept:
                where, quantity = wording.at(scenario, point), "texts/s ÷ bare ONNX Runtime"
                yield Ratio(scenario.name, where, quantity, GATEWAY, kept)
