"""The panels of errors, releases, Triton and processes."""

from __future__ import annotations

from deploy.grafana.panels import CHOSEN, WINDOW, Query, Shown, rate, ratio

_NO_ERRORS = 'label_replace(vector(0), "code", "none", "", "")'

RELEASES = (
    Shown(
        "Errors by code",
        "Error answers a second by the code of the problem JSON; requests of no known model count.",
        (
            Query(
                f'sum by (code) (rate(gateway_errors_total{{model=~"$model|"}}{WINDOW})) or'
                f" {_NO_ERRORS}",
                "{{code}}",
            ),
        ),
        "reqps",
    ),
    Shown(
        "Releases' share of the rows",
        "Which release answers how much of a model's rows, shadow copies included.",
        (
            Query(
                f"{rate('gateway_rows_total', CHOSEN, 'model, release')} / on (model) group_left ()"
                f" ({rate('gateway_rows_total')} > 0)",
                "{{model}} {{release}}",
            ),
        ),
        "percentunit",
    ),
    Shown(
        "State of releases",
        "1: ready on every gateway. 0: not ready. -1: rejected by verification.",
        (
            Query(
                f"min by (model, release) (gateway_release_ready{{{CHOSEN}}})"
                f" - max by (model, release) (gateway_release_rejected{{{CHOSEN}}})",
                "{{model}} {{release}}",
            ),
        ),
        "none",
        kind="states",
    ),
    Shown(
        "Restarts",
        "Workers that died and were started again, by preprocessor, models reloaded because their"
        " calls failed, and restarts of the embedded Triton.",
        (
            Query(
                f"sum by (distribution) (increase(gateway_worker_restarts_total{WINDOW}))",
                "{{distribution}}",
            ),
            Query(
                f"sum by (model) (increase(gateway_model_reloads_total{WINDOW}))",
                "reloads of {{model}}",
            ),
            Query(f"sum(delta(gateway_triton_restarts{WINDOW}))", "embedded Triton"),
        ),
    ),
)


def _per_request(duration: str) -> str:
    """Return the mean seconds that Triton says a request spent; it counts in microseconds."""
    return f"{ratio(duration, 'nv_inference_request_success')} / 1e6"


TRITON = (
    Shown(
        "Triton: queue and compute",
        "Triton's own view: mean time of a call in its queue and in the model. Its queue should"
        " stay near 0, since rows wait in the gateway.",
        (
            Query(_per_request("nv_inference_queue_duration_us"), "queue {{model}}"),
            Query(_per_request("nv_inference_compute_infer_duration_us"), "compute {{model}}"),
        ),
        "s",
        6,
    ),
    Shown(
        "Triton: rows per execution",
        "Mean rows that Triton computes at once, after it has merged calls.",
        (Query(ratio("nv_inference_count", "nv_inference_exec_count"), "{{model}}"),),
        "short",
        6,
    ),
    Shown(
        "Triton up",
        "1 where every gateway reaches the replica.",
        (Query("min by (replica) (gateway_triton_up)", "{{replica}}"),),
        "none",
        4,
        "states",
    ),
    Shown(
        "Replicas passed by",
        "Times a replica got no calls of a model for a while, because of errors or latency.",
        (
            Query(
                "sum by (replica, model, cause)"
                f" (increase(gateway_triton_ejections_total{WINDOW}))",
                "{{replica}} {{model}} {{cause}}",
            ),
        ),
        "short",
        4,
    ),
    Shown(
        "Gateways behind the load balancer",
        "Gateways that answer the load balancer.",
        (Query('sum(haproxy_backend_active_servers{proxy="gateways"})', "in rotation"),),
        "none",
        4,
    ),
)

PROCESSES = (
    Shown(
        "CPU of gateways and workers",
        "Cores in use. A gateway process uses at most one: at 1 it is the bottleneck.",
        (
            Query(
                f"sum by (instance, kind) (rate(gateway_process_cpu_seconds_total{WINDOW}))",
                "{{instance}} {{kind}}",
            ),
        ),
        "none",
    ),
    Shown(
        "Memory of gateways and workers",
        "Resident memory; pages that processes share count once for each.",
        (Query("sum by (instance, kind) (gateway_process_memory_bytes)", "{{instance}} {{kind}}"),),
        "bytes",
    ),
    Shown(
        "CPU of Triton's hosts",
        "Share of the host's CPUs in use, by everything on it, as Triton reports it.",
        (Query("max by (instance) (nv_cpu_utilization)", "{{instance}}"),),
        "percentunit",
        warn=0.9,
    ),
    Shown(
        "Memory of Triton's hosts",
        "Share of the host's memory in use, by everything on it, as Triton reports it.",
        (
            Query(
                "max by (instance) (nv_cpu_memory_used_bytes / nv_cpu_memory_total_bytes)",
                "{{instance}}",
            ),
        ),
        "percentunit",
        warn=0.9,
    ),
)
