"""The order of windows, and how the knee is closed in on.

Servers are stood in for: what is tested is which windows are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from loadtests.bench import bench, models, results, rounds, scenario
from loadtests.bench.deployment import Deployment
from loadtests.bench.windows import Corpus
from loadtests.load.limit import Limit
from loadtests.load.plan import Target

LIMIT = 100.0
#: The highest rate that each arm holds.
HOLDS = {"fast": 1000, "middling": 60, "slow": 10}


class StandIn:
    """A limit."""

    def batches(self, size: int, seconds: float) -> dict[str, float]:
        assert seconds == rounds.LIMIT_SECONDS
        return {"rate": LIMIT - size}


def deployments() -> list[Deployment]:
    given: list[Any] = [None, 0, "predict", [Target("a"), Target("b"), Target("c")], None, 0.0]
    return [Deployment(arm, *given) for arm in HOLDS]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str, str]]:
    found: list[tuple[int, str, str]] = []

    def measure(*given: Any) -> tuple[results.Window, str]:
        deployment, _, _, number, point, rate, beside = given
        found.append((number, deployment.arm, point + (" +" if beside else "")))
        late = rate is not None and rate > HOLDS[deployment.arm]
        p99 = 251.0 if late else 250.0
        latency = results.Latency(1, 1, p99, p99, p99, "")
        return results.Window(deployment.arm, number, point, 1, rate=1, latency=latency), ""

    monkeypatch.setattr(rounds, "measure", measure)
    return found


def run(name: str, **changed: Any) -> rounds.Measured:
    declared = scenario.Scenario(name=name, title="", arms=[*HOLDS], sets=[], **changed)
    made = rounds.Rounds(declared, cast(Corpus, None), lambda _: None)
    for number in range(declared.rounds):
        made.round(number, deployments(), cast(Limit, StandIn()))
    return made.found


def test_every_other_round_runs_in_the_opposite_order(asked: list[tuple[int, str, str]]) -> None:
    found = run("closed", kind="closed", users=7, rounds=2)
    assert asked == [
        (0, "fast", "7"), (0, "middling", "7"), (0, "slow", "7"),
        (1, "slow", "7"), (1, "middling", "7"), (1, "fast", "7"),
    ]  # fmt: skip
    assert [window.arm for window in found.windows] == [arm for _, arm, _ in asked]
    assert [(each.round, each.rate) for each in found.limits[:3]] == [(0, 96), (0, 92), (0, 84)]


def test_the_knee_is_looked_for_between_what_held_and_what_did_not(
    asked: list[tuple[int, str, str]],
) -> None:
    rates = [0.25, 0.5, 0.75]  # of 96
    run("knee", kind="knee", rates=rates, slo_ms=250, halvings=2, rounds=1)
    points = {arm: [point for _, each, point in asked if each == arm] for arm in HOLDS}
    assert points["fast"] == ["24/s", "48/s", "72/s"]  # held all: nothing to halve
    assert points["middling"] == ["24/s", "48/s", "72/s", "60/s", "66/s"]
    assert points["slow"] == ["24/s", "12/s", "6/s"]
    assert asked[3:5] == [(0, "fast", "48/s"), (0, "middling", "48/s")]


def test_a_neighbour_is_there_in_half_of_the_windows(asked: list[tuple[int, str, str]]) -> None:
    run("neighbour", kind="neighbour", beside=scenario.Beside(1, 300), rounds=2)
    of_fast = [(number, point) for number, arm, point in asked if arm == "fast"]
    assert of_fast == [(0, "alone"), (0, "beside +"), (1, "beside +"), (1, "alone")]


@pytest.mark.parametrize(("arrivals", "p99"), [(None, 250.0), (30, 251.0)])
def test_many_models_are_asked_by_users_or_arrivals(
    asked: list[tuple[int, str, str]], arrivals: float | None, p99: float
) -> None:
    found = run("scaling", kind="scaling", arrivals=arrivals, rounds=1)
    assert [point for *_, point in asked] == ["3"] * len(HOLDS)
    assert not found.limits
    assert found.windows[-1].latency
    assert found.windows[-1].latency.p99 == p99  # `slow` is late at that rate


@pytest.mark.parametrize(
    ("apart", "order"),
    [
        (False, "+a1 +b1 +a2 +b2 a1 b1 a2 b2 a1 a2 b2 a2 b1 a1 -b2 -a2 -b1 -a1"),
        (True, "+a1 +a2 a1 a2 a1 a2 a2 a1 -a2 -a1 +b1 +b2 b1 b2 b2 b1 -b2 -b1"),
    ],
)
def test_deployments_are_up_together_or_arm_after_arm(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, apart: bool, order: str
) -> None:
    events: list[str] = []

    class Service:
        def processes(self) -> dict[str, list[Any]]:
            return {}

    @contextmanager
    def deployed(arm: str, served: models.Models, _: Path) -> Iterator[Deployment]:
        name = f"{arm}{len(served.names)}"
        events.append(f"+{name}")
        targets = [Target(model) for model in served.names]
        yield Deployment(arm, served, 0, "predict", targets, cast("Any", Service()), 0.0)
        events.append(f"-{name}")

    def measure(deployment: Deployment, *_: Any) -> tuple[results.Window, str]:
        events.append(f"{deployment.arm}{len(deployment.targets)}")
        return results.Window(deployment.arm, 0, "", 1), ""

    def generated(folder: Path, count: int, _: int) -> models.Models:
        return models.Models(folder, [str(number) for number in range(count)], "scores", {})

    monkeypatch.setattr(bench, "deployed", deployed)
    monkeypatch.setattr(bench, "agree", lambda *_, **__: None)
    monkeypatch.setattr(bench, "described", lambda *_: None)
    monkeypatch.setattr(models, "generated", generated)
    monkeypatch.setattr(rounds, "measure", measure)
    common = {"title": "", "kind": "scaling", "sets": [], "models": [1, 2], "apart": apart}
    declared = [
        {"name": "users", "arms": ["a", "b"], "rounds": 2},
        {"name": "arrivals", "arms": ["a"], "rounds": 1, "arrivals": 9},
    ]
    run = bench.Bench(tmp_path, tmp_path, lambda _: None, lambda _: None)
    run.run([msgspec.convert(common | each, scenario.Scenario) for each in declared])
    assert events == order.split()
    assert [len(run.scenarios[each].windows) for each in ("users", "arrivals")] == [8, 2]


@pytest.mark.parametrize("name", scenario.names())
def test_every_scenario_is_declared_rightly(name: str) -> None:
    for chosen in ("full", "quick"):
        declared = scenario.read(name, chosen)  # type: ignore[arg-type]
        assert declared.arms
        assert (declared.models == scenario.MINILM) == (declared.kind != "scaling")
        assert bool(declared.rates) == (declared.kind in {"open", "knee"})
        assert bool(declared.beside) >= (declared.kind == "neighbour")
        assert bool(declared.slo_ms) == (declared.kind == "knee")
        assert bool(declared.arrivals or declared.apart) <= (declared.kind == "scaling")
