"""A rollout amid load: the gateway gives all traffic to another release, and nobody notices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Timer

import httpx

from loadtests.bench.deployment import Deployment, gateway
from loadtests.bench.models import Models
from loadtests.bench.rounds import Measured, Rounds
from loadtests.bench.scenario import Scenario
from loadtests.bench.windows import Corpus
from loadtests.load.plan import Target
from loadtests.load.stack import copy

MODEL, BEFORE, AFTER = "minilm", "1", "2"


class RolloutError(RuntimeError):
    """The other release did not get the traffic."""


def measure(
    scenario: Scenario, models: Models, corpus: Corpus, folder: Path, say: Callable[[str], None]
) -> Measured:
    """Measure windows in whose middle the release changes. Raises RolloutError, WrongAnswers."""
    repository = copy([MODEL], folder / "repository")
    found = Measured()
    with gateway("gateway", models, repository, folder / "run") as deployment:
        anybody = deployment._replace(targets=[Target(MODEL)])
        rounds = Rounds(scenario, corpus, say)
        for number in range(scenario.rounds):
            _promote(deployment, BEFORE)
            after = scenario.warm_up + scenario.seconds / 2
            change = Timer(after, _promote, (deployment, AFTER))
            change.start()
            found.windows.append(rounds.window(anybody, number, f"{BEFORE} to {AFTER}"))
            change.join()
            if _traffic(deployment) != {AFTER: 100}:
                raise RolloutError(f"the traffic is {_traffic(deployment)}")
    found.notes.append(
        f"Half way through each window `promote` moved all traffic from release {BEFORE} to "
        f"release {AFTER}, which runs other versions of its libraries."
    )
    return found


def _promote(deployment: Deployment, release: str) -> None:
    url = f"{deployment.url}/admin/models/{MODEL}/promote"
    httpx.post(url, json={"release": release}).raise_for_status()


def _traffic(deployment: Deployment) -> dict[str, int]:
    """Return the weights that are in force and not zero."""
    answer = httpx.get(f"{deployment.url}/models/{MODEL}").raise_for_status().json()
    return {name: weight for name, weight in answer["traffic"].items() if weight}
