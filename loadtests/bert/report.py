"""The report of `loadtests/gpu.py`: all figures as JSON, and what people read as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

#: What each workload should reach: singles a second, and a share of the raw loop's best.
AIMS = {"singles": ("rows_per_second", 15_000.0), "batches": ("ratio", 0.8)}
NOT_SHOWN = (
    "Quality: the weights are random, from a seed. How fast they are does not depend on them.",
    "Longer texts, where the model's share of the work grows and the gateway's shrinks.",
    "A network: the load generators share the cores with what they measure, over loopback.",
    "Request logs: the gateways log warnings only.",
    "The container's C++ backends: this is the embedded Triton with its Python-based one.",
    "Preprocessors in environments of their own: here it runs inside the gateways.",
)
RAW = (
    "It has no server: tokenised texts, sorted by length, wait in pinned memory, and it goes on to"
    " the next batch without waiting for an answer."
)
HEAD = (
    *("workload", "users", "rows/s", "÷ raw loop's best", "aim"),
    *("p50 ms", "p99 ms", "rows a call", "rows an execution", "cores busy"),
)
Round = Mapping[str, Any]


def summary(rounds: Sequence[Round]) -> dict[str, dict[str, float]]:
    """Return each workload's medians: rows/s, and its ratio to the raw loop's best of its round."""
    found = {}
    for name in rounds[0]["workloads"]:
        rates = [each["workloads"][name]["rows_per_second"] for each in rounds]
        ratios = [
            rate / max(each["raw"].values()) for rate, each in zip(rates, rounds, strict=True)
        ]
        found[name] = {"rows_per_second": median(rates), "ratio": median(ratios)}
    return found


def markdown(report: Mapping[str, Any]) -> str:
    """Render a report for people."""
    rounds: Sequence[Round] = report["rounds"]
    rows = [_row(name, total, rounds) for name, total in report["summary"].items()]
    raw = {rows: median(each["raw"][rows] for each in rounds) for rows in rounds[0]["raw"]}
    note = (
        f"Medians of {len(rounds)} rounds; each measured the raw loop first, then the workloads."
        " Cores busy: gateways / Triton / its model instances / load generators.\n"
    )
    bare = ", ".join(f"{rows} → {rate:,.0f}" for rows, rate in raw.items())
    return "\n".join(
        [
            "# BERT through the whole stack on a GPU\n",
            f"`{report['command']}`\n",
            *(f"- {name}: {value}" for name, value in report["facts"].items()),
            "",
            _line(HEAD),
            _line(["---"] * len(HEAD)),
            *map(_line, rows),
            "",
            note,
            f"The raw loop, rows a batch → rows/s: {bare}. {RAW}\n",
            "What this does not show:\n",
            *(f"- {line}" for line in NOT_SHOWN),
            "",
        ]
    )


def _row(name: str, total: Mapping[str, float], rounds: Sequence[Round]) -> list[str]:
    seen = [each["workloads"][name] for each in rounds]
    quantity, aim = AIMS[name]
    met = "met" if total[quantity] >= aim else "**missed**"

    def middle(read: Callable[[Any], float]) -> float:
        return median(map(read, seen))

    cores = [
        middle(lambda one, group=group: one["cores"][group])  # type: ignore[misc]
        for group in ("gateway", "triton", "instances", "generator")
    ]
    requested = seen[0]["rows_per_request"]
    return [
        name if requested == 1 else f"{name} of {requested}",
        str(seen[0]["users"]),
        f"{total['rows_per_second']:,.0f}",
        f"{total['ratio']:.3f}",
        f"{aim:,g}{'' if quantity == 'ratio' else ' rows/s'}: {met}",
        f"{middle(lambda one: one['latency_ms']['p50']):.1f}",
        f"{middle(lambda one: one['latency_ms']['p99']):.1f}",
        f"{middle(lambda one: one['rows_per_call']):.1f}",
        f"{middle(lambda one: one['rows_per_execution']):.1f}",
        " / ".join(f"{value:.1f}" for value in cores),
    ]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
