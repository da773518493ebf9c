"""The rounds of a scenario: each measures every arm once, every other one in the opposite order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from loadtests.bench import locust, results
from loadtests.bench.deployment import Deployment
from loadtests.bench.scenario import Scenario
from loadtests.bench.windows import Corpus, measure
from loadtests.load.limit import ROWS, Limit

LIMIT_SECONDS = 1.5
#: What is compared with the limit, or has rates that are fractions of it.
LIMITED = ("closed", "open", "knee")
T = TypeVar("T")


@dataclass
class Measured:
    """What a scenario found."""

    windows: list[results.Window] = field(default_factory=list)
    limits: list[results.Limit] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def turns(items: Sequence[T], number: int) -> list[T]:
    """Return the items in the order of round `number`."""
    return list(items) if number % 2 == 0 else list(reversed(items))


class Rounds:
    """Runs one scenario on deployments that are there."""

    def __init__(self, scenario: Scenario, corpus: Corpus, say: Callable[[str], None]) -> None:
        self._scenario = scenario
        self._corpus = corpus
        self._say = say
        self.found = Measured()

    def round(
        self, number: int, deployments: Sequence[Deployment], limit: Limit | None = None
    ) -> None:
        """Measure one round; what it found is added to `found`. Raises WrongAnswers."""
        kinds = {
            "closed": self._closed,
            "soak": self._soak,
            "neighbour": self._neighbour,
            "open": self._open,
            "knee": self._knee,
            "scaling": self._scaling,
        }
        best = 0.0
        if limit and self._scenario.kind in LIMITED:
            best = self._limit(limit, number)
        kinds[self._scenario.kind](deployments, number, best)

    def window(
        self,
        deployment: Deployment,
        number: int,
        point: str,
        *,
        rate: float | None = None,
        beside: bool = True,
    ) -> results.Window:
        """Measure one window. Raises WrongAnswers."""
        scenario = self._scenario
        if scenario.generator == "locust":
            found, problems = locust.measure(deployment, scenario, number, point)
        else:
            other = scenario.beside if beside else None
            found, problems = measure(
                deployment, scenario, self._corpus, number, point, rate, other
            )
        p99 = f", p99 {found.latency.p99:.0f} ms" if found.latency else ""
        self._say(f"{scenario.name}: {deployment.arm} at {point}: {found.rate:.0f}/s{p99}")
        if problems:
            self._say(f"  {found.errors} errors: {problems}")
        return found

    def _closed(self, deployments: Sequence[Deployment], number: int, _: float) -> None:
        for deployment in turns(deployments, number):
            self._take(self.window(deployment, number, str(self._scenario.users)))

    def _soak(self, deployments: Sequence[Deployment], number: int, _: float) -> None:
        for part in range(self._scenario.parts):
            for deployment in turns(deployments, part):
                self._take(self.window(deployment, number, str(part + 1)))

    def _neighbour(self, deployments: Sequence[Deployment], number: int, _: float) -> None:
        for deployment in turns(deployments, number):
            for beside in turns((False, True), number):
                point = "beside" if beside else "alone"
                self._take(self.window(deployment, number, point, beside=beside))

    def _scaling(self, deployments: Sequence[Deployment], number: int, _: float) -> None:
        for deployment in turns(deployments, number):
            models, rate = str(len(deployment.targets)), self._scenario.arrivals
            self._take(self.window(deployment, number, models, rate=rate))

    def _open(self, deployments: Sequence[Deployment], number: int, limit: float) -> None:
        for fraction in self._scenario.rates:
            for deployment in turns(deployments, number):
                self._at(deployment, number, limit * fraction)

    def _knee(self, deployments: Sequence[Deployment], number: int, limit: float) -> None:
        """Go up for all arms together; one that does not hold any more is done with that."""
        between = {deployment.arm: (0.0, 0.0) for deployment in deployments}
        climbing = list(deployments)
        for fraction in self._scenario.rates:
            for deployment in turns(climbing, number):
                held, _ = between[deployment.arm]
                holds = self._at(deployment, number, limit * fraction)
                between[deployment.arm] = (fraction, 0.0) if holds else (held, fraction)
                if not holds:
                    climbing.remove(deployment)
        for _ in range(self._scenario.halvings):
            for deployment in turns(deployments, number):
                held, broken = between[deployment.arm]
                if broken:
                    middle = (held + broken) / 2
                    holds = self._at(deployment, number, limit * middle)
                    between[deployment.arm] = (middle, broken) if holds else (held, middle)

    def _at(self, deployment: Deployment, number: int, rate: float) -> bool:
        """Measure arrivals at a rate; returns whether the bound on the latency held."""
        found = self.window(deployment, number, f"{rate:.0f}/s", rate=round(rate))
        self._take(found)
        bound = self._scenario.slo_ms
        return not found.errors and bool(bound and found.latency and found.latency.p99 <= bound)

    def _take(self, window: results.Window) -> None:
        self.found.windows.append(window)

    def _limit(self, limit: Limit, number: int) -> float:
        """Measure the limit of this round; returns the best."""
        found = [
            results.Limit(number, rows, limit.batches(rows, LIMIT_SECONDS)["rate"]) for rows in ROWS
        ]
        self.found.limits += found
        best = max(each.rate for each in found)
        self._say(f"{self._scenario.name}: round {number + 1}, limit {best:.0f}/s")
        return best
