"""Which candidate is best, and the table that shows why."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from loadtests.tuning.candidates import Candidate
from loadtests.tuning.load import Window

#: Rates this near to the best count as equal: the smaller candidate is taken.
TIE = 0.03
#: After so many rounds a candidate drops out whose best rate is below this share of the leader's.
JUDGED_AFTER = 2
KEEP = 0.7

Results = Mapping[Candidate, Sequence[Window]]


class Summary(NamedTuple):
    """Medians over a candidate's windows, and the least and greatest rate."""

    rate: float
    p50: float
    p99: float
    least: float
    most: float
    cpu: float


def summary(windows: Sequence[Window]) -> Summary:
    """Summarise a candidate's windows."""
    rates = [window.rate for window in windows]
    return Summary(
        statistics.median(rates),
        statistics.median(window.p50 for window in windows),
        statistics.median(window.p99 for window in windows),
        min(rates),
        max(rates),
        statistics.median(window.cpu for window in windows),
    )


def best(results: Results, now: Candidate, slo_ms: float) -> Candidate:
    """Return the candidate of the highest rate among those whose p99 keeps the SLO.

    Of rates within `TIE` of it the one that takes fewest cores and instances; of several such the
    present one, `now`. Where none keeps the SLO: the one of the lowest p99.
    """
    found = {candidate: summary(windows) for candidate, windows in results.items()}
    within = [candidate for candidate in found if found[candidate].p99 <= slo_ms]
    if not within:
        return min(found, key=lambda candidate: (found[candidate].p99, candidate))
    enough = max(found[candidate].rate for candidate in within) * (1 - TIE)
    equal = [candidate for candidate in within if found[candidate].rate >= enough]
    return min(equal, key=lambda candidate: (candidate.cores, candidate != now, candidate))


def promising(results: Results, now: Candidate, slo_ms: float) -> list[Candidate]:
    """Return those still worth measuring: not far slower than the leader, or faster to answer.

    Judged by their best window: something else on the machine may have spoilt the others.
    """
    found = {candidate: summary(windows) for candidate, windows in results.items()}
    leader = found[best(results, now, slo_ms)]
    return [
        candidate
        for candidate, item in found.items()
        if item.most >= KEEP * leader.rate or item.p99 < leader.p99
    ]


def table(results: Results, now: Candidate, slo_ms: float) -> list[str]:
    """Return the lines of the table, fastest first."""
    rows = [
        (
            "instances × threads",
            "rows",
            "delay µs",
            "rows/s",
            "least–most",
            "p50 ms",
            "p99 ms",
            "CPU ms/row",
            "",
        )
    ]
    chosen = best(results, now, slo_ms)
    found = {candidate: summary(windows) for candidate, windows in results.items()}
    rounds = max(map(len, results.values()))
    for candidate in sorted(found, key=lambda c: -found[c].rate):
        item, notes = found[candidate], []
        if candidate == chosen:
            notes.append("BEST")
        if candidate == now:
            notes.append("as it is now")
        if item.p99 > slo_ms:
            notes.append("misses the SLO")
        if len(results[candidate]) < rounds:
            notes.append(f"dropped after {JUDGED_AFTER} rounds")
        rows.append(
            (
                *(f"{candidate.instances} × {candidate.threads}", f"{candidate.rows}"),
                *(f"{candidate.delay_us}", f"{item.rate:.0f}", f"{item.least:.0f}–{item.most:.0f}"),
                *(f"{item.p50:.1f}", f"{item.p99:.1f}", f"{item.cpu:.1f}", ", ".join(notes)),
            )
        )
    return aligned(rows)


def others(results: Results) -> float:
    """Return the median share of the machine that other programs had while we measured."""
    return statistics.median(w.others for windows in results.values() for w in windows)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table: columns as wide as their widest cells, the last one free."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(size) for cell, size in zip(row[1:-1], widths[1:], strict=False)),
                row[-1],
            ]
        ).rstrip()
        for row in rows
    ]
