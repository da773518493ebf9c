"""The report of a run, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from loadtests.chaos.ledger import Fate
from loadtests.chaos.overload import Overload
from loadtests.chaos.trial import Trial

HEADS = (
    "fault",
    "sent",
    "right",
    "refused",
    "wrong",
    "lost",
    "named, s",
    "well again, s",
    "verdict",
)


def page(machine: Mapping[str, str], overloads: Sequence[Overload], trials: Sequence[Trial]) -> str:
    """Return the whole report."""
    parts = [
        "# Chaos",
        "",
        ", ".join(f"{name}: {value}" for name, value in machine.items()) + ".",
        "",
    ]
    if trials:
        parts += ["## Faults under load", "", *_table(HEADS, map(_row, trials)), ""]
        parts += [f"- {one.fault.name}: {told}" for one in trials for told in one.failures]
        parts += [""]
    for one in overloads:
        parts += [f"## {_title(one)}", "", *_table(("figure", "value"), one.rows.items()), ""]
    return "\n".join(parts)


def _row(trial: Trial) -> Sequence[str]:
    fates = [str(trial.all.fates.get(fate, 0)) for fate in Fate]
    codes = ", ".join(f"{count} {code}" for code, count in sorted(trial.all.codes.items()))
    right, refused, wrong, lost = fates
    return (
        f"{trial.fault.what} ({trial.seconds:.0f} s)",
        str(trial.all.sent),
        right,
        f"{refused}: {codes}" if codes else refused,
        wrong,
        lost,
        _seconds(trial.named),
        _seconds(trial.mended),
        "failed" if trial.failures else "as it should be",
    )


def _title(one: Overload) -> str:
    options = one.options
    kind = "singles" if options.rows == 1 else f"batches of {options.rows}"
    connections = "fresh connections" if options.fresh else "kept connections"
    obeying = ", clients obey Retry-After" if options.obedient else ""
    return (
        f"Overload: {options.factor:g} times the capacity for {options.seconds:g} s,"
        f" {options.model}, {kind}, {connections}{obeying}"
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
