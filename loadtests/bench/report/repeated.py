"""Two runs of the same scenarios: whether they agree on every ratio.

Least and greatest of a few rounds tell how far rounds differ, not how far two runs may: by chance
alone, all five rounds of one run lie beyond all five of another in 2 of 252 cases (as many as there
are ways to choose five of ten). Over a hundred ratios some will. So each is held against what
chance explains, over all of them together.
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
    """One ratio of a run, to which arm (the gateway itself: to itself, or to the limit)."""

    where: str
    quantity: str
    arm: str
    spread: Spread

    @property
    def key(self) -> tuple[str, str, str]:
        """What it has in common with that of another run."""
        return self.where, self.quantity, self.arm

    @property
    def alike(self) -> tuple[str, ...]:
        """What ratios have in common whose rounds differ alike.

        Memory has no noise; it grows, each arm's by itself.
        """
        return self.key if self.quantity == MEMORY.name else self.key[:2]


class Repeated(NamedTuple):
    """One ratio of two runs, and what each found of it.

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
        if one == other:
            return 1.0
        return other / one if one else math.inf

    @property
    def agrees(self) -> bool:
        """Whether chance explains that."""
        return self.apart <= self.allowed

    @property
    def meets(self) -> bool:
        """Whether a round of one run lies within those of the other."""
        lower, upper = sorted((self.now, self.earlier), key=lambda spread: spread.most)
        return upper.least <= lower.most


def compare(now: Results, earlier: Results) -> list[Repeated]:
    """Return every ratio that both runs have, with a spread, in the order of the report."""
    before = {found.key: found.spread for found in _ratios(earlier)}
    both = [
        (found, spread)
        for found in _ratios(now)
        if (spread := before.get(found.key)) and min(found.spread.rounds, spread.rounds) > 1
    ]
    alike = defaultdict[tuple[str, ...], list[Spread]](list)
    for found, spread in both:
        alike[found.alike] += [found.spread, spread]
    noise = {key: deviation(spreads) for key, spreads in alike.items()}
    compared = []
    for found, spread in both:
        chance = allowed(noise[found.alike], found.spread, spread, len(both))
        leeway = MEMORY_LEEWAY if found.quantity == MEMORY.name else LEEWAY
        compared.append(Repeated(*found, spread, max(1 + leeway, chance)))
    return compared


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
        yield Ratio(standing.where, standing.quantity, standing.arm, standing.spread)
    for aim in judge(results):
        if aim.spread and aim.arm == GATEWAY:  # the others are among the standings
            yield Ratio("", aim.name, GATEWAY, aim.spread)
    for scenario in (each for each in results.scenarios if each.kind == "closed"):
        for (point, arm), cell in cells(scenario).items():
            kept = ratio(cell.rounds(rate), limits(scenario)) if arm == GATEWAY else None
            if kept:
                yield Ratio(
                    wording.at(scenario, point), "texts/s ÷ bare ONNX Runtime", GATEWAY, kept
                )
