"""Prometheus metrics. Labels are bounded: model, release, endpoint, status, stage, replica."""

from __future__ import annotations

import os
from functools import cache

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.multiprocess import MultiProcessCollector

#: Seconds; from a tenth of a millisecond (tabular trees) to the longest deadline.
SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
RELEASE = ("model", "release")

REQUESTS = Counter("gateway_requests_total", "Requests answered", ("model", "endpoint", "status"))
REQUEST_SECONDS = Histogram(
    "gateway_request_seconds", "Time to answer a request", ("model", "endpoint"), buckets=SECONDS
)
STAGE_SECONDS = Histogram(
    "gateway_stage_seconds",
    "Time of one stage: queue, preprocess, infer (a call), postprocess",
    (*RELEASE, "stage"),
    buckets=SECONDS,
)
ROWS_TOTAL = Counter("gateway_rows_total", "Instances answered", RELEASE)
ROWS_ADMITTED = Gauge(
    "gateway_rows_admitted",
    "Instances between admission and answer",
    RELEASE,
    multiprocess_mode="livesum",
)
CALLS_IN_FLIGHT = Gauge(
    "gateway_calls_in_flight", "Calls to Triton under way", RELEASE, multiprocess_mode="livesum"
)
CALL_ROWS = Histogram("gateway_call_rows", "Instances per call to Triton", RELEASE, buckets=ROWS)
CALL_PADDING = Histogram(
    "gateway_call_padding_ratio",
    "Share of a call's tokens that is padding",
    RELEASE,
    buckets=(0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0),
)
RELEASE_READY = Gauge(
    "gateway_release_ready",
    "1 where a release can take requests",
    RELEASE,
    multiprocess_mode="livemin",
)
RELEASE_REJECTIONS = Counter(
    "gateway_release_rejections_total", "Times the alignment gate rejected a release", RELEASE
)
SHADOW_REQUESTS = Counter("gateway_shadow_requests_total", "Requests copied to a shadow", RELEASE)
SHADOW_DISAGREEMENTS = Gauge(
    "gateway_shadow_disagreements",
    "Instances whose label or tensors differ",
    RELEASE,
    multiprocess_mode="livesum",
)
SHADOW_DIFFERENCE = Gauge(
    "gateway_shadow_max_abs_difference",
    "Largest difference of any number of a result",
    RELEASE,
    multiprocess_mode="livemax",
)
SHADOW_LATENCY = Gauge(
    "gateway_shadow_latency_seconds",
    "Mean latency of the shadow less that of the answer",
    RELEASE,
    multiprocess_mode="livemostrecent",
)
REPLICA_UP = Gauge(
    "gateway_triton_up",
    "1 where a Triton replica answers",
    ("replica",),
    multiprocess_mode="livemin",
)
TRITON_RESTARTS = Gauge(
    "gateway_triton_restarts", "Restarts of the embedded Triton", multiprocess_mode="livemax"
)
REQUESTS_OPEN = Gauge(
    "gateway_requests_open", "Requests being worked on", multiprocess_mode="livesum"
)


def registry() -> CollectorRegistry:
    """Return what `/metrics` shows: of all gateways that share the port, where there are several.

    prometheus_client then keeps every process's values in files of the folder that
    PROMETHEUS_MULTIPROC_DIR names.
    """
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return REGISTRY
    shared = CollectorRegistry()
    MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
    return shared


@cache
def answered(model: str, endpoint: str, status: int) -> tuple[Counter, Histogram]:
    """Return what counts a request and what observes its seconds; found once, as labels cost."""
    return (
        REQUESTS.labels(model, endpoint, str(status)),
        REQUEST_SECONDS.labels(model, endpoint),
    )


class held:  # noqa: N801 - it reads as a verb: `with held(gauge):`
    """Raises `gauge` by `amount` while the block runs, whatever way it ends."""

    __slots__ = ("_amount", "_gauge")

    def __init__(self, gauge: Gauge, amount: float = 1) -> None:
        self._gauge = gauge
        self._amount = amount

    def __enter__(self) -> None:
        """Raise it."""
        self._gauge.inc(self._amount)

    def __exit__(self, *_: object) -> None:
        """Lower it."""
        self._gauge.dec(self._amount)
