"""Prometheus metrics.

Labels are bounded: model, release, endpoint, status, error code, stage, replica, distribution.
"""

from __future__ import annotations

import math
from functools import cache

from prometheus_client import Counter, Gauge, Histogram

from gateway.telemetry import multiprocess

multiprocess.adopt()

#: Seconds; from a tenth of a millisecond (tabular trees) to the longest deadline.
SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
#: Shares of a deadline, from 0 to 1.
SHARES = (0.001, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
RELEASE = ("model", "release")

REQUESTS = Counter("gateway_requests_total", "Requests answered", ("model", "endpoint", "status"))
ERRORS = Counter(
    "gateway_errors_total", "Requests answered with an error", ("model", "endpoint", "code")
)
REQUEST_SECONDS = Histogram(
    "gateway_request_seconds", "Time to answer a request", ("model", "endpoint"), buckets=SECONDS
)
STAGE_SECONDS = Histogram(
    "gateway_stage_seconds",
    "Time of one stage: queue, preprocess, infer (a call), postprocess",
    (*RELEASE, "stage"),
    buckets=SECONDS,
)
QUEUE_DEADLINE_RATIO = Histogram(
    "gateway_queue_deadline_ratio",
    "Share of a request's deadline that it waited in the queue",
    ("model",),
    buckets=SHARES,
)
ROWS_TOTAL = Counter("gateway_rows_total", "Instances answered", RELEASE)
ROWS_DROPPED = Counter(
    "gateway_rows_dropped_total",
    "Instances given up in a stage, as their deadline had passed or their client had left",
    ("model", "stage"),
)
ROWS_ADMITTED = Gauge(
    "gateway_rows_admitted",
    "Instances between admission and answer",
    RELEASE,
    multiprocess_mode="livesum",
)
CALLS_IN_FLIGHT = Gauge(
    "gateway_calls_in_flight", "Calls to Triton in progress", RELEASE, multiprocess_mode="livesum"
)
CALL_ROWS = Histogram("gateway_call_rows", "Instances per call to Triton", RELEASE, buckets=ROWS)
CALL_PADDING = Histogram(
    "gateway_call_padding_ratio",
    "Share of a call's tokens that is padding",
    RELEASE,
    buckets=(0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0),
)
CALL_ELEMENTS = Counter(
    "gateway_call_elements_total",
    "Elements of the tensors that were padded to a common length, padding included",
    RELEASE,
)
CALL_PADDING_ELEMENTS = Counter(
    "gateway_call_padding_elements_total", "Elements of these that were padding", RELEASE
)
MODEL_BROKEN = Gauge(
    "gateway_model_broken",
    "1 if a model's releases.toml or releases.lock cannot be read",
    ("model",),
    multiprocess_mode="livemax",
)
RELEASE_READY = Gauge(
    "gateway_release_ready",
    "1 if a release can take requests",
    RELEASE,
    multiprocess_mode="livemin",
)
RELEASE_REJECTED = Gauge(
    "gateway_release_rejected",
    "1 if verification keeps a release from traffic",
    RELEASE,
    multiprocess_mode="livemax",
)
RELEASE_WEIGHT = Gauge(
    "gateway_release_weight",
    "A release's weight in the applied traffic",
    RELEASE,
    multiprocess_mode="livemostrecent",
)
RELEASE_REJECTIONS = Counter(
    "gateway_release_rejections_total", "Times verification rejected a release", RELEASE
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
    "Mean latency of the shadow minus that of the answer",
    RELEASE,
    multiprocess_mode="livemostrecent",
)
REPLICA_UP = Gauge(
    "gateway_triton_up",
    "1 if a Triton replica answers",
    ("replica",),
    multiprocess_mode="livemin",
)
REPLICA_EJECTIONS = Counter(
    "gateway_triton_ejections_total",
    "Times a replica was passed by for a model, because of errors or latency",
    ("replica", "model", "cause"),
)
TRITON_RESTARTS = Gauge(
    "gateway_triton_restarts", "Restarts of the embedded Triton", multiprocess_mode="livemax"
)
MODEL_RELOADS = Counter(
    "gateway_model_reloads_total", "Reloads of a model whose calls failed", ("model",)
)
REQUESTS_OPEN = Gauge("gateway_requests_open", "Requests in progress", multiprocess_mode="livesum")
CONNECTIONS_REFUSED = Counter(
    "gateway_connections_refused_total", "Connections closed at once, as there were too many"
)
LOG_ERRORS = Counter("gateway_log_errors_total", "Log lines that could not be written")
WORKER_RESTARTS = Counter(
    "gateway_worker_restarts_total", "Workers that died and were restarted", ("distribution",)
)
PROCESS_CPU = Counter(
    "gateway_process_cpu_seconds_total", "CPU time of the gateway's processes", ("kind",)
)
PROCESS_MEMORY = Gauge(
    "gateway_process_memory_bytes",
    "Resident memory of the gateway's processes",
    ("kind",),
    multiprocess_mode="livesum",
)
#: The state of releases: gauges that are shown only for existing releases.
STANDING = (RELEASE_READY, RELEASE_REJECTED, RELEASE_WEIGHT)
STAGES = ("queue", "preprocess", "infer", "postprocess")


@cache
def answered(model: str, endpoint: str, status: int) -> tuple[Counter, Histogram]:
    """Return the counter and timer of a request; cached, since looking up labels is slow."""
    return (
        REQUESTS.labels(model, endpoint, str(status)),
        REQUEST_SECONDS.labels(model, endpoint),
    )


@cache
def failed(model: str, endpoint: str, code: str) -> Counter:
    """Return the counter of answers with this error code."""
    return ERRORS.labels(model, endpoint, code)


@cache
def dropped(model: str, stage: str) -> Counter:
    """Return the counter of a model's instances that were given up in this stage."""
    return ROWS_DROPPED.labels(model, stage)


@cache
def queue_ratio(model: str) -> Histogram:
    """Return the histogram of the share of their deadline that a model's requests queued."""
    return QUEUE_DEADLINE_RATIO.labels(model)


@cache
def standing(model: str, release: str) -> tuple[Gauge, Gauge, Gauge]:
    """Return the gauges of a release: ready, rejected, weight."""
    ready, rejected, weight = (gauge.labels(model, release) for gauge in STANDING)
    return ready, rejected, weight


def replica_gone(endpoint: str) -> None:
    """Show a replica neither as up nor as down; several processes cannot remove a label."""
    REPLICA_UP.labels(endpoint).set(math.nan)
    if not multiprocess.several():
        REPLICA_UP.remove(endpoint)


class BatcherMetrics:
    """The metrics of one release's batcher, looked up once; `seconds` by stage."""

    def __init__(self, model: str, release: str) -> None:
        self.seconds = {each: STAGE_SECONDS.labels(model, release, each) for each in STAGES}
        self.in_flight = CALLS_IN_FLIGHT.labels(model, release)
        self.rows = CALL_ROWS.labels(model, release)
        self.padding_ratio = CALL_PADDING.labels(model, release)
        self.elements = CALL_ELEMENTS.labels(model, release)
        self.padding = CALL_PADDING_ELEMENTS.labels(model, release)
