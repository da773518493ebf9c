"""The report: all figures as JSON, and the tables that people read as Markdown."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from loadtests.load.window import percentiles
from loadtests.micro.aims import Round, Verdict, best_limit, judge

#: Groups of processes whose CPU time is shown, in this order.
GROUPS = ("all", "gateway", "workers", "triton", "instances", "bare", "generator")
NOTE = """Rates are medians of the rounds, least and greatest in brackets. Latencies are in ms, over
all rounds. Rows and padding are the mean call's to Triton. CPU time is in ms an instance, by group
of processes; it tells more than rates do where others keep the machine busy.
"""
STAGES = "Each by itself, in one process: µs a row, and what of them is that process's CPU time.\n"
SHOWN = ("p50", "p90", "p99", "p99.9")
AIM_HEAD = ("workload", "aim", "measured", "spread", "verdict", "by CPU time")
LOAD_HEAD = ("window", "instances/s", *SHOWN, "rows", "padding", *(f"CPU {g}" for g in GROUPS))


def build(
    rounds: Sequence[Round], skipped: dict[str, str], machine: dict[str, str], command: str
) -> dict[str, Any]:
    """Return everything that was measured, ready for JSON."""
    names = dict.fromkeys(name for item in rounds for name in item)
    return {
        "command": command,
        "machine": machine,
        "aims": [_verdict(verdict) for verdict in judge(rounds)],
        "limit": best_limit(rounds),
        "others": _others(rounds),
        "skipped": skipped,
        "windows": {
            name: _window([item[name] for item in rounds if name in item]) for name in names
        },
    }


def markdown(report: dict[str, Any]) -> str:
    """Render a report for people."""
    windows: dict[str, Any] = report["windows"]
    load = {name: window for name, window in windows.items() if "rate" in window["figures"]}
    limit = (
        f" The limit is the fastest of its variants: {report['limit']}." if report["limit"] else ""
    )
    parts = [
        "# Microbenchmark\n",
        f"`{report['command']}`\n",
        "\n".join(f"- {name}: {value}" for name, value in report["machine"].items()),
        f"- programs beside the benchmark took {report['others']:.0%} of the machine\n",
    ]
    if report["aims"]:
        parts += ["## Aims\n", f"Medians of the rounds.{limit}\n"]
        parts += [_table(AIM_HEAD, map(_aim, report["aims"]))]
    parts += [f"Skipped: {name}: {reason}.\n" for name, reason in report["skipped"].items()]
    if load:
        parts += ["## Windows\n", NOTE, _table(LOAD_HEAD, itertools.starmap(_load, load.items()))]
    if "stages" in windows:
        rows = _stages(windows["stages"]["figures"])
        parts += ["## Stages\n", STAGES, _table(("stage", "wall", "CPU"), rows)]
    return "\n".join(parts)


def _others(rounds: Sequence[Round]) -> float:
    """Return the share of the machine that other programs took: the median of all windows."""
    samples = (sample.figures for item in rounds for sample in item.values())
    return median([figures["others"] for figures in samples if "others" in figures] or [0.0])


def _verdict(verdict: Verdict) -> dict[str, Any]:
    aim = verdict.aim
    return {
        "name": aim.name,
        "workload": aim.workload,
        "aim": aim.aim,
        "floor": aim.floor,
        "at_most": aim.at_most,
        "unit": aim.unit,
        "median": verdict.median,
        "values": verdict.values,
        "by_cpu": verdict.by_cpu,
        "met": verdict.met,
        "broken": verdict.broken,
    }


def _window(samples: Sequence[Any]) -> dict[str, Any]:
    figures = dict.fromkeys(name for sample in samples for name in sample.figures)
    latencies = [value for sample in samples for value in sample.latencies]
    return {
        "latency_ms": percentiles(latencies) | {"requests": len(latencies)},
        "figures": {
            name: _spread([s.figures[name] for s in samples if name in s.figures])
            for name in figures
        },
    }


def _spread(values: list[float]) -> dict[str, Any]:
    return {"median": median(values), "min": min(values), "max": max(values), "rounds": values}


def _aim(item: dict[str, Any]) -> tuple[str, ...]:
    sign, unit = ("≤" if item["at_most"] else "≥"), item["unit"]
    return (
        item["workload"],
        f"{sign} {item['aim']:g}{unit}",
        f"{item['median']:.3g}{unit}",
        f"{min(item['values']):.3g} to {max(item['values']):.3g}",
        "met" if item["met"] else "**missed**",
        f"{median(item['by_cpu']):.3g}" if item["by_cpu"] else "",
    )


def _load(name: str, window: dict[str, Any]) -> tuple[str, ...]:
    figures, latency = window["figures"], window["latency_ms"]
    rate = figures["rate"]
    return (
        name,
        f"{rate['median']:.0f} ({rate['min']:.0f} to {rate['max']:.0f})",
        *(f"{latency[at]:.2f}" if at in latency else "" for at in SHOWN),
        _middle(figures, "rows", ".1f"),
        _middle(figures, "padding", ".0%"),
        *(_middle(figures, f"cpu.{group}", ".2f") for group in GROUPS),
    )


def _middle(figures: dict[str, Any], name: str, form: str) -> str:
    return format(figures[name]["median"], form) if name in figures else ""


def _stages(figures: dict[str, Any]) -> Iterable[tuple[str, ...]]:
    for name in dict.fromkeys(key.rpartition(".")[0] for key in figures):
        wall, cpu = figures[f"{name}.wall"], figures[f"{name}.cpu"]
        yield (
            name,
            f"{wall['median']:.0f} ({wall['min']:.0f} to {wall['max']:.0f})",
            f"{cpu['median']:.0f}",
        )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
