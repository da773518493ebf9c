"""Whether two runs agree: what chance explains, and what it does not."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from loadtests.bench import results as written
from loadtests.bench import stages
from loadtests.bench.report import page, repeated, sentences, tables
from loadtests.bench.report.statistics import Spread
from loadtests.bench.results import (
    Results,
)
from loadtests.bench.stages import Count
from tests.bench.made_up import MIB, results, scenario, side_by_side, window
from tests.bench.test_report import titles


@pytest.mark.parametrize(
    ("earlier", "agree", "meet"),
    [
        ([150, 160], True, True),
        ([120, 123], True, False),  # beyond the rounds, but not by more than they differ
        ([250, 300], False, False),
        ([60, 61], False, False),
    ],
)
def test_two_runs_agree_where_their_rounds_explain_the_difference(
    earlier: list[float], agree: bool, meet: bool
) -> None:
    runs = [results(side_by_side(rates, [100, 100])) for rates in ([125, 155], earlier)]
    found = {each.quantity: each for each in repeated.compare(*runs)}
    assert (found["texts/s"].agrees, found["texts/s"].meets) == (agree, meet)
    assert found["p99"].agrees  # equal
    backwards = {each.quantity: each for each in repeated.compare(*reversed(runs))}
    assert backwards["texts/s"].agrees is agree
    told = sentences.agreement(list(found.values()), runs[1])
    assert f"{len(found)} of the same ratios: on {len(found) - (not agree)} of them" in told
    last = tables.runs(list(found.values()), titles()).rows[0][-1]
    assert last == ("yes" if agree else "no")


def test_chance_parts_one_of_a_hundred_ratios_in_a_few_pairs_of_runs() -> None:
    rng = random.Random(8)
    rounds, noise, alike, groups, pairs = 5, 0.1, 10, 10, 50

    def run(shift: float = 1.0) -> Spread:
        values = [shift * math.exp(rng.gauss(0, noise)) for _ in range(rounds)]
        found = Spread.of(values)
        assert found
        return found

    def apart(both: list[tuple[Spread, Spread]]) -> int:
        found = repeated.deviation([spread for pair in both for spread in pair])
        most = repeated.allowed(found, *both[0], alike * groups)
        medians = [sorted(spread.median for spread in pair) for pair in both]
        return sum(other / one > most for one, other in medians)

    parted = [
        any(apart([(run(), run()) for _ in range(alike)]) for _ in range(groups))
        for _ in range(pairs)
    ]
    assert sum(parted) / pairs < 2 * repeated.CHANCE
    changed = [apart([(run(1.5), run())] + [(run(), run()) for _ in range(alike - 1)])]
    assert changed == [1]  # half as much again does not hide in that noise


@pytest.mark.parametrize(("earlier", "agree"), [(104, True), (106, False)])
def test_memory_may_differ_more_as_a_run_has_one_start(earlier: int, agree: bool) -> None:
    def run(used: int) -> Results:
        memory = {"gateway": used * MIB, "tornado_onnx": 100 * MIB}
        return results(
            scenario(
                [
                    window(arm, at, pss_bytes={"services": memory[arm]})
                    for arm in memory
                    for at in (0, 1)
                ]
            )
        )

    found = {each.quantity: each for each in repeated.compare(run(100), run(earlier))}
    assert found["memory (PSS)"].agrees is agree


def test_stages_are_drawn_for_those_who_tell_of_them() -> None:
    before = {"queue": Count(10, 1.0), "infer": Count(5, 2.0)}
    after = {"queue": Count(30, 1.5), "infer": Count(5, 2.0), "postprocess": Count(2, 0.001)}
    means = stages.means(before, after)
    assert means == pytest.approx({"queue": 25, "postprocess": 0.5})
    told = scenario([window("gateway", stage_ms=means), window("tornado_onnx")])
    drawn = {plot.name: plot for plot in page.figures.draw(results(told), titles())["closed"]}
    assert "queue" in drawn["closed-stages"].file
    assert "Tornado + ONNX" not in drawn["closed-stages"].file
    untold = page.figures.draw(results(side_by_side([200], [100])), titles())["closed"]
    assert "closed-stages" not in {plot.name for plot in untold}


def test_only_what_both_runs_have_with_a_spread_is_compared() -> None:
    both = results(side_by_side([200, 210], [100, 100]), scenario([window("gateway")], "rollout"))
    assert not repeated.compare(both, results())
    assert not repeated.compare(both, results(side_by_side([200], [100])))
    assert {each.arm for each in repeated.compare(both, both)} == {"tornado_onnx"}


def test_a_run_keeps_the_one_before_of_the_same_command(tmp_path: Path) -> None:
    found = results(side_by_side([200, 210], [100, 100]))
    written.write(found, tmp_path / "results.json")
    written.keep(tmp_path, found.command)
    assert written.read(tmp_path / written.EARLIER) == found
    written.write(found, tmp_path / "results.json")
    written.keep(tmp_path, "another")
    assert not (tmp_path / written.EARLIER).exists()
    (tmp_path / "results.json").write_text('{"of": "another version"}')
    written.keep(tmp_path, found.command)
    assert not (tmp_path / written.EARLIER).exists()
