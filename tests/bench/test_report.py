"""The comparison's report: every number, verdict and sentence follows from the results."""

from __future__ import annotations

import math
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hdrh.histogram import HdrHistogram

from loadtests.bench import results as written
from loadtests.bench import stages
from loadtests.bench.report import aims, page, palette, repeated, sentences, statistics, tables
from loadtests.bench.report.standings import standings
from loadtests.bench.report.statistics import Spread
from loadtests.bench.results import (
    Agreement,
    Arm,
    Kind,
    Latency,
    Limit,
    Results,
    Scenario,
    Window,
)
from loadtests.bench.stages import Count
from tests.support.stack import ROOT

MIB = 1 << 20
BASELINES = list(aims.RATES)


def latency(*milliseconds: float) -> Latency:
    histogram = HdrHistogram(1, 60_000_000, 3)
    for value in milliseconds:
        histogram.record_value(round(value * 1000))
    at = histogram.get_percentile_to_value_dict(statistics.PERCENTILES)
    return Latency(*(value / 1000 for value in at.values()), histogram.encode().decode())


def window(
    arm: str, number: int = 0, rate: float = 100, *, point: str = "64", **more: Any
) -> Window:
    given: dict[str, Any] = {
        "requests": 1000,
        "rows": 1000,
        "latency": latency(10),
        "cpu_seconds": {"services": 4.0, "generator": 1.0, "others": 0.0},
    }
    return Window(arm, number, point, 10.0, rate=rate, **(given | more))


def scenario(windows: list[Window], kind: Kind = "closed", **more: Any) -> Scenario:
    given = {"models": "minilm", "random_weights": False, "rows": 1, "generator": "light"}
    return Scenario(kind, f"All {kind}", kind, windows=windows, **(given | more))


def results(*scenarios: Scenario) -> Results:
    arms = [Arm("gateway", "The gateway", "It batches.", "max_rows = 16\n")]
    agreements = [Agreement("gateway", 1, 8, 1e-6)]
    machine, versions = {"CPU": "2 cores"}, {"tornado": "6.5"}
    return Results(
        "make bench", "today", 90.0, machine, versions, arms, agreements, list(scenarios)
    )


def side_by_side(gateway: list[float], other: list[float], arm: str = "tornado_onnx") -> Scenario:
    found = []
    for at, rates in enumerate(zip(gateway, other, strict=True)):
        names = ("gateway", arm)
        found += [window(name, at, rate) for name, rate in zip(names, rates, strict=True)]
    return scenario(found)


def said(found: Results, what: str) -> list[str]:
    titles = palette.titles(found)
    if what == "misses":
        return sentences.misses(found, aims.judge(found), titles)
    result: list[str] = getattr(sentences, what)(found, titles)
    return result


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


def test_the_report_tells_of_the_run_before(tmp_path: Path) -> None:
    for name in ("results.json", written.EARLIER):
        written.write(results(*EVERY_KIND), tmp_path / name)
    command = [sys.executable, "-W", "error", "-m", "loadtests.bench.report"]
    command += [str(tmp_path / "results.json"), "--out", str(tmp_path / "out")]
    subprocess.run(command, cwd=ROOT, check=True)
    for name in ("report.html", "report.md"):
        told = (tmp_path / "out" / name).read_text()
        assert "Measured twice" in told
        assert "The run before this one (today) measured" in told
        title = {"report.html": "Ratios of two runs", "report.md": "| the run before |"}
        assert title[name] in told


def test_the_landed_report_follows_from_its_results() -> None:
    folder = ROOT / "loadtests/report/bench"
    found, earlier = (written.read(folder / name) for name in ("results.json", written.EARLIER))
    said = page.contents(found, page.figures.draw(found, palette.titles(found)), earlier)
    assert page.render("report.md", said) == (folder / "report.md").read_text()


EVERY_KIND = [
    side_by_side([200, 220], [100, 100]),
    scenario([window(arm, point="50/s") for arm in ("gateway", "new")], "open", slo_ms=50.0),
    scenario([window("gateway", point="50/s")], "knee", slo_ms=50.0),
    scenario([window("gateway", point=at) for at in ("1", "21")], "scaling", random_weights=True),
    scenario([window("gateway", point=at) for at in ("alone", "beside")], "neighbour"),
    scenario([Window(arm, 0, "", 9.5) for arm in ("gateway", "tornado_onnx")], "start"),
    scenario([window("gateway", point="")], "rollout"),
    scenario([window("gateway", point=f"part {at}") for at in range(3)], "soak", notes=["<b> & |"]),
]


@pytest.mark.parametrize("kinds", [EVERY_KIND, EVERY_KIND[:1], EVERY_KIND[5:6], [], [scenario([])]])
def test_page_and_markdown_of_any_scenarios(tmp_path: Path, kinds: list[Scenario]) -> None:
    path = tmp_path / "results.json"
    written.write(results(*kinds), path)
    command = [sys.executable, "-W", "error", "-m", "loadtests.bench.report", str(path)]
    subprocess.run([*command, "--out", str(tmp_path / "out")], cwd=ROOT, check=True)
    html = (tmp_path / "out/report.html").read_text()
    markdown = (tmp_path / "out/report.md").read_text()
    for one in kinds:
        assert f"All {one.kind}" in html
        assert f"## All {one.kind}" in markdown
    for drawing in re.findall(r"!\[.*?\]\((.*?)\)", markdown):
        assert (tmp_path / "out" / drawing).read_text().endswith("</svg>\n")
    assert len(re.findall("<figure>", html)) == len(list((tmp_path / "out").glob("*.svg")))


def test_the_page_needs_nothing_but_itself() -> None:
    drawn = page.figures.draw(results(*EVERY_KIND), palette.titles(results(*EVERY_KIND)))
    html = page.render("report.html", page.contents(results(*EVERY_KIND), drawn))
    assert not re.search(r"<(script|link|img|iframe|object|embed)\b|@import|\bsrc=", html)
    assert set(re.findall(r"url\((.)", html)) == {"#"}
    links = set(re.findall(r'href="([^#][^"]*)"', html))
    assert len(links) == 1  # the published comparison, which a reader may follow
    names = re.findall(r'\bid="([^"]*)"', html)
    assert len(names) == len(set(names))
    for name in re.findall(r'(?:url\(|href=")#([^")]*)', html):
        assert name in names
    assert "&lt;b&gt; &amp; |" in html
    assert "<svg" in html
    assert "new" in html  # an arm that the published comparison does not have


def test_arms_keep_their_order_and_colours() -> None:
    assert palette.order(["new", "gateway", "flask_transformers"]) == [
        "flask_transformers",
        "gateway",
        "new",
    ]
    colours = [look.colour for look in palette.LOOKS.values()]
    assert len(set(colours)) == len(colours) == 6
    assert set(BASELINES) < set(palette.LOOKS)
