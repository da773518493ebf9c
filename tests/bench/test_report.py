"""The comparison's report: every number, verdict and sentence follows from the results."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from loadtests.bench.report import aims, palette, repeated, statistics, tables
from loadtests.bench.report.standings import standings
from loadtests.bench.report.statistics import Spread
from loadtests.bench.results import (
    Limit,
    Scenario,
    Window,
)
from tests.bench.made_up import MIB, latency, results, said, scenario, side_by_side, window


def test_a_ratio_is_taken_within_rounds_and_not_of_medians() -> None:
    cells = statistics.cells(side_by_side([100, 300, 200], [100, 100, 200]))
    gateway, other = cells["64", "gateway"], cells["64", "tornado_onnx"]
    assert gateway.spread(statistics.rate) == Spread(200, 100, 300, 3)
    assert other.spread(statistics.rate) == Spread(100, 100, 200, 3)
    assert gateway.over(other, statistics.rate) == Spread(1, 1, 3, 3)


def test_a_round_that_one_side_lacks_does_not_count() -> None:
    found = [window("gateway", 0, 300), window("gateway", 1, 200), window("tornado_onnx", 1, 100)]
    cells = statistics.cells(scenario(found))
    ratio = cells["64", "gateway"].over(cells["64", "tornado_onnx"], statistics.rate)
    assert ratio == Spread(2, 2, 2, 1)


def test_percentiles_are_of_all_rounds_together() -> None:
    first = window("gateway", 0, latency=latency(*[10] * 98))
    second = window("gateway", 1, latency=latency(*[20] * 1, 400))
    percentiles = statistics.cells(scenario([first, second]))["64", "gateway"].percentiles
    assert percentiles is not None
    assert [round(percentiles[at]) for at in (50.0, 90.0, 99.0, 100.0)] == [10, 10, 20, 400]


def test_cpu_and_memory_leave_out_who_is_not_of_the_arm() -> None:
    cpu = {"gateway": 1.0, "instances": 3.0, "generator": 5.0, "others": 7.0}
    memory = {"gateway": 10 * MIB, "instances": 30 * MIB, "generator": 50 * MIB}
    one = window("gateway", cpu_seconds=cpu, pss_bytes=memory, requests=1000, errors=1000)
    assert statistics.cpu(one) == 4.0  # for 1,000 right answers
    assert statistics.cpu_by_group(one) == {"gateway": 1.0, "instances": 3.0}
    assert statistics.pss(one) == 40 * MIB
    cell = statistics.cells(scenario([one]))["64", "gateway"]
    assert cell.groups(lambda w: w.pss_bytes) == {"gateway": 10 * MIB, "instances": 30 * MIB}
    assert cell.share("generator") == 5 / 16
    assert cell.share("others") == 7 / 16


def test_the_limit_is_the_best_of_each_round() -> None:
    limits = [Limit(0, 4, 200.0), Limit(0, 8, 250.0), Limit(1, 4, 400.0), Limit(1, 8, 300.0)]
    found = scenario([window("gateway", 0, 200), window("gateway", 1, 200)], limits=limits)
    assert statistics.limits(found) == {0: 250.0, 1: 400.0}
    assert "0.65× (0.50 to 0.80)" in tables.architectures(results(found), titles()).rows[-1]


def titles() -> dict[str, str]:
    return palette.titles(results())


@pytest.mark.parametrize(
    ("rates", "verdict"),
    [
        ([210, 140, 154], "met by 10%"),
        ([126, 126, 126], "missed by 10%"),
        ([140, 140, 130], "met by 0%, not in every round"),
        ([139, 139, 139], "missed by 0.7%"),
    ],
)
def test_aims_are_judged_by_the_median(rates: list[float], verdict: str) -> None:
    found = results(side_by_side(rates, [100, 100, 100]))
    judged = {aim.name: aim for aim in aims.judge(found)}
    assert judged["texts/s ÷ tornado_onnx"].verdict == verdict
    assert judged["p99 ÷ tornado_onnx"].verdict == "missed by 0%"  # equal is not lower
    others = [aim for name, aim in judged.items() if "tornado_onnx" not in name]
    assert {aim.verdict for aim in others} == {"not measured"}
    assert len(judged) == 10


def test_a_lower_p99_meets_its_aim() -> None:
    arms = ("gateway", "flask_transformers")
    found = [window(arm, latency=latency(ms)) for arm, ms in zip(arms, (5, 20), strict=True)]
    judged = {aim.name: aim.verdict for aim in aims.judge(results(scenario(found)))}
    assert judged["p99 ÷ flask_transformers"] == "met by 75%"


def test_random_weights_meet_no_aim_and_are_labelled_everywhere() -> None:
    found = results(
        scenario([window("gateway")], models="21", random_weights=True),
        scenario([window("gateway", point="1")], "scaling", models="21", random_weights=True),
    )
    assert {aim.verdict for aim in aims.judge(found)} == {"not measured"}
    assert "answers mean nothing" in " ".join(said(found, "conclusions"))
    assert "random weights" in tables.architectures(found, titles()).title
    for one in found.scenarios:
        for table in tables.windows(one, titles()):
            assert "random weights, speed only" in table.title


@pytest.mark.parametrize(
    ("rates", "sentence"),
    [
        ([200, 300], "The gateway handles 2.50× (2.00 to 3.00) the texts/s of Tornado + ONNX"),
        ([80, 90], "The gateway loses to Tornado + ONNX Runtime: 0.85× (0.80 to 0.90) its"),
        ([90, 120], "The gateway and Tornado + ONNX Runtime are level within the spread: 1.05×"),
    ],
)
def test_conclusions_follow_from_the_numbers(rates: list[float], sentence: str) -> None:
    (told,) = said(results(side_by_side(rates, [100, 100])), "conclusions")
    assert told.startswith(sentence)


def test_losses_are_told_where_every_round_agrees() -> None:
    told = said(results(side_by_side([80, 90], [100, 100])), "losses")
    assert told == [
        "All closed, 64 users, texts/s: 0.85× (0.80 to 0.90) that of Tornado + ONNX Runtime."
    ]
    assert said(results(side_by_side([80, 110], [100, 100])), "losses") == []


def test_a_missed_aim_says_by_what_and_why() -> None:
    found = scenario(
        [window("gateway", rate=120), window("tornado_onnx")], limits=[Limit(0, 8, 130.0)]
    )
    told = " ".join(said(results(found), "misses"))
    assert "Tornado + ONNX Runtime: 1.20× instead of 1.4, missed by 14%." in told
    assert "bare ONNX Runtime, without a server, does 1.30× the texts/s of Tornado + ONNX" in told
    assert "4 ms of CPU time (100% services), 1.00× that of Tornado + ONNX Runtime" in told


def test_a_missed_p99_says_how_far_apart_answers_are() -> None:
    slow = latency(*[5] * 60, *[30] * 40)
    found = results(scenario([window("gateway", latency=slow), window("tornado_onnx")]))
    (told,) = [line for line in said(found, "misses") if "p99" in line]
    assert "Its p50 is 0.50× that of Tornado + ONNX Runtime. So its answers are further" in told


def test_singles_alone_and_beside_batches_are_told_apart() -> None:
    found = [
        window(arm, number, rate, point=point)
        for point, rates in (("alone", (100, 50)), ("beside", (30, 60)))
        for arm, rate in zip(("gateway", "tornado_onnx"), rates, strict=True)
        for number in range(2)
    ]
    given = results(scenario(found, "neighbour"))
    assert said(given, "losses") == [
        "All neighbour, beside, texts/s: 0.50× (0.50 to 0.50) that of Tornado + ONNX Runtime."
    ]
    assert {(each.where, each.now.median) for each in repeated.compare(given, given)} >= {
        ("All neighbour, alone", 2.0),
        ("All neighbour, beside", 0.5),
    }


def test_errors_are_told_wherever_the_arm_is_compared() -> None:
    found = results(scenario([window("gateway", rate=500), window("tornado_onnx", errors=5)]))
    assert "failed 5 of 1,005 requests (0.5%)" in said(found, "cautions")[0]
    judged = {aim.name: aim.verdict for aim in aims.judge(found)}
    assert judged["texts/s ÷ tornado_onnx"] == "met by 257%; 5 errors"
    row = tables.architectures(found, titles()).rows[2]
    assert row[0] == "Tornado + ONNX Runtime"
    assert row[-1] == "5"


def test_an_arm_that_answers_nothing_is_compared_with_nothing() -> None:
    dead = window("tornado_onnx", rate=0, requests=0, errors=1000, latency=None)
    found = results(scenario([window("gateway"), dead]))
    assert said(found, "conclusions") == [
        "Tornado + ONNX Runtime gave no right answers to compare with."
    ]
    judged = {aim.name: aim.verdict for aim in aims.judge(found)}
    assert judged["texts/s ÷ tornado_onnx"] == "not measured"


def test_a_busy_machine_and_a_single_round_are_told() -> None:
    cpu = {"services": 6.0, "generator": 1.0, "others": 3.0}
    found = scenario([window("gateway", cpu_seconds=cpu), window("tornado_onnx")])
    busy, single = said(results(found), "cautions")
    assert busy.startswith("Other programs used 15% of the CPU time")
    assert "from 0% beside Tornado + ONNX Runtime to 30% beside Tornado gateway + Triton" in busy
    assert single.startswith("There was one round only")


def test_many_models_are_held_against_one_in_the_same_round() -> None:
    rates = {("1", 0): 100, ("21", 0): 95, ("100", 0): 80, ("1", 1): 200, ("21", 1): 180}
    memory = {"1": 100, "21": 300, "100": 1090}
    found = scenario(
        [
            window("gateway", at, rate, point=point, pss_bytes={"instances": memory[point] * MIB})
            for (point, at), rate in rates.items()
        ],
        "scaling",
    )
    judged = {aim.name: aim for aim in aims.judge(results(found))}
    of_21 = judged["texts/s with 21 models ÷ with one, closed loop"]
    assert of_21.spread == pytest.approx(Spread(0.925, 0.9, 0.95, 2))
    assert of_21.verdict == "met by 3%"
    (told,) = said(results(found), "misses")
    assert "100 models" in told
    assert told.endswith("a request costs more CPU time, in ms: services 4 → 4.")
    of_100 = judged["texts/s with 100 models ÷ with one, closed loop"]
    assert of_100.verdict == "missed by 11%"
    rows = tables.windows(found, titles())[0].rows
    assert [row[1:] for row in rows] == [
        ("21", "0.93× (0.90 to 0.95)", "1.00× (1.00 to 1.00)", "10 (10 to 10)"),
        ("100", "0.80×", "1.00×", "10"),
    ]


def test_many_models_are_judged_by_each_load_they_were_under() -> None:
    def many(name: str, rates: dict[str, float], **more: Any) -> Scenario:
        windows = [window("gateway", 0, rate, point=at) for at, rate in rates.items()]
        return msgspec.structs.replace(scenario(windows, "scaling", **more), name=name)

    found = results(
        many("closed", {"1": 100, "21": 70}),
        many("arriving", {"1": 40, "21": 40}, arrivals=40.0),
        many("apart", {"1": 100, "100": 50}, apart=True),
    )
    judged = {aim.name: aim.verdict for aim in aims.judge(found) if aim.arm == "gateway"}
    assert judged == {
        "texts/s with 21 models ÷ with one, closed loop": "missed by 22%",
        "texts/s with 21 models ÷ with one, 40 arrivals/s": "met by 11%",
        "texts/s with 100 models ÷ with one, closed loop": "missed by 44%",
    }
    assert [aim.verdict for aim in aims.judge(results())][-2:] == ["not measured"] * 2


def test_arms_that_were_measured_apart_are_compared_in_memory_alone() -> None:
    def both(**more: Any) -> list[str]:
        memory = {"pss_bytes": {"services": MIB}}
        windows = [window(arm, point="1", **memory) for arm in ("gateway", "tornado_onnx")]
        standing = standings(results(scenario(windows, "scaling", **more)))
        return [each.quantity for each in standing]

    assert both() == ["texts/s", "p99", "CPU time a request", "memory (PSS)"]
    assert both(arrivals=40.0) == ["p99", "CPU time a request"]
    assert both(apart=True) == ["memory (PSS)"]


def test_the_knee_is_the_highest_rate_that_held_without_errors() -> None:
    def at(arm: str, number: int, rate: float, ms: float, errors: int = 0) -> Window:
        given = {"latency": latency(ms), "errors": errors}
        return window(arm, number, rate, point=f"{rate:g}/s", **given)

    found = scenario(
        [
            at("gateway", 0, 100, 20),
            at("gateway", 0, 200, 49),
            at("gateway", 0, 300, 51),
            at("gateway", 1, 150, 20, errors=1),
            at("tornado_onnx", 0, 80, 20),
            at("tornado_onnx", 1, 60, 90),
        ],
        "knee",
        slo_ms=50.0,
    )
    assert statistics.knees(found, "gateway") == {0: 200, 1: 0}
    assert statistics.knees(found, "tornado_onnx") == {0: 80, 1: 0}
    rows = tables.windows(found, titles())[0].rows
    assert rows[0][2] == "2.50×, 1 of 2 rounds"
