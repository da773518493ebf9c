"""Results that no run has had, to test the report with."""

from __future__ import annotations

from typing import Any

from hdrh.histogram import HdrHistogram

from loadtests.bench.report import aims, palette, sentences, statistics
from loadtests.bench.results import (
    Agreement,
    Arm,
    Kind,
    Latency,
    Results,
    Scenario,
    Window,
)

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
