"""The dashboard's panels, row by row: what each shows, in which unit, and why it is there.

`$model` and `$__rate_interval` are Grafana's. A query about errors ends in `or …` so that no errors
show as 0 and not as "no data".
"""

from __future__ import annotations

from typing import NamedTuple

#: Labels of the endpoints that predict, for the models that are chosen.
PREDICTIONS = 'endpoint=~"single|batch",model=~"$model"'
SINGLES = 'endpoint="single",model=~"$model"'
CHOSEN = 'model=~"$model"'
WINDOW = "[$__rate_interval]"


class Query(NamedTuple):
    """One query and the name of its series."""

    expression: str
    legend: str


class Shown(NamedTuple):
    """One panel; `warn` and `alarm` are where its colour changes, in its unit.

    `kind` is `stat`, `graph` or `states`, `width` of the page's 24 columns.
    """

    title: str
    about: str
    queries: tuple[Query, ...]
    unit: str = "short"
    width: int = 6
    kind: str = "graph"
    warn: float | None = None
    alarm: float | None = None


def rate(metric: str, labels: str = CHOSEN, by: str = "model") -> str:
    """Return the rate a second of a counter, summed."""
    return f"sum by ({by}) (rate({metric}{{{labels}}}{WINDOW}))"


def ratio(part: str, whole: str, labels: str = CHOSEN, by: str = "model") -> str:
    """Return a counter's rate as a share of another's, where that is not 0."""
    return f"{rate(part, labels, by)} / ({rate(whole, labels, by)} > 0)"


def quantile(share: float, histogram: str, labels: str, by: str = "") -> str:
    """Return a quantile of a histogram."""
    groups = ", ".join(("le", by) if by else ("le",))
    return f"histogram_quantile({share}, {rate(f'{histogram}_bucket', labels, groups)})"


_ALL = f"sum(rate(gateway_requests_total{{{PREDICTIONS}}}{WINDOW}))"
_FAILED = f'sum(rate(gateway_requests_total{{{PREDICTIONS},status=~"5.."}}{WINDOW}))'

SUMMARY = (
    Shown(
        "Releases ready",
        "Releases that can take requests on every gateway, of those that are loaded.",
        (
            Query(f"sum(min by (model, release) (gateway_release_ready{{{CHOSEN}}}))", "ready"),
            Query(f"count(max by (model, release) (gateway_release_ready{{{CHOSEN}}}))", "loaded"),
        ),
        width=4,
        kind="stat",
    ),
    Shown("Requests", "Predictions a second.", (Query(_ALL, "requests"),), "reqps", 4, "stat"),
    Shown(
        "Failed",
        "Share of predictions answered with 5xx.",
        (Query(f"({_FAILED} or vector(0)) / ({_ALL} > 0)", "failed"),),
        "percentunit",
        4,
        "stat",
        0.001,
        0.05,
    ),
    Shown(
        "p99 of singles",
        "99 of 100 single predictions are answered within this time. The objective is 0.5 s.",
        (Query(quantile(0.99, "gateway_request_seconds", SINGLES), "p99"),),
        "s",
        4,
        "stat",
        0.25,
        0.5,
    ),
    Shown(
        "Budget burn, 1 h",
        "How many times faster than allowed the error budget of the worst model is used. Above"
        " 14.4 a page is sent.",
        (
            Query(f"max(model:gateway_latency_budget:burnrate1h{{{CHOSEN}}})", "latency"),
            Query(f"max(model:gateway_availability_budget:burnrate1h{{{CHOSEN}}})", "availability"),
        ),
        "none",
        4,
        "stat",
        1,
        14.4,
    ),
    Shown(
        "Alerts firing",
        "Alerts that fire now, of all models; the list is in Prometheus under Alerts.",
        (Query('count(ALERTS{alertstate="firing"}) or vector(0)', "firing"),),
        "none",
        4,
        "stat",
        1,
        1,
    ),
)

TRAFFIC = (
    Shown(
        "Requests by model and endpoint",
        "What clients ask for. A model that falls to 0 has lost its clients or its route.",
        (
            Query(
                rate("gateway_requests_total", PREDICTIONS, "model, endpoint"),
                "{{model}} {{endpoint}}",
            ),
        ),
        "reqps",
        8,
    ),
    Shown(
        "Time of singles by model",
        "Median and p99 of whole requests, as clients of the gateway see them.",
        (
            Query(quantile(0.5, "gateway_request_seconds", SINGLES, "model"), "p50 {{model}}"),
            Query(quantile(0.99, "gateway_request_seconds", SINGLES, "model"), "p99 {{model}}"),
        ),
        "s",
        8,
    ),
    Shown(
        "Time by stage",
        "Where the time goes: queue (a row), preprocess, infer and postprocess (a call).",
        (
            Query(quantile(0.5, "gateway_stage_seconds", CHOSEN, "stage"), "p50 {{stage}}"),
            Query(quantile(0.99, "gateway_stage_seconds", CHOSEN, "stage"), "p99 {{stage}}"),
        ),
        "s",
        8,
    ),
)

BATCHING = (
    Shown(
        "Rows per call",
        "Mean instances in one call to Triton: 1 without load, more the more rows wait.",
        (Query(ratio("gateway_call_rows_sum", "gateway_call_rows_count"), "{{model}}"),),
    ),
    Shown(
        "Padding",
        "Share of what is sent to Triton that is padding; only models with inputs of varying"
        " length have any.",
        (
            Query(
                ratio("gateway_call_padding_elements_total", "gateway_call_elements_total"),
                "{{model}}",
            ),
        ),
        "percentunit",
        warn=0.5,
    ),
    Shown(
        "Rows between admission and answer",
        "Rows that wait or are worked on. What could not be answered in time is refused with 429, "
        "and at `queue_rows` all.",
        (Query(f"sum by (model) (gateway_rows_admitted{{{CHOSEN}}})", "{{model}}"),),
    ),
    Shown(
        "Queue's share of the deadline",
        "p99 of the share of their deadline that requests spend in the queue. At 1 they expire.",
        (Query(quantile(0.99, "gateway_queue_deadline_ratio", CHOSEN, "model"), "p99 {{model}}"),),
        "percentunit",
        warn=0.5,
    ),
)
