"""Two gateways and two Tritons under load: shares of the work, limits, what Prometheus saw."""

from __future__ import annotations

import json
import math
import re
import time
from typing import Any

import httpx
import pytest

from deploy.grafana import dashboard
from tests.support.compose import PROJECT, Compose, docker, eventually
from tests.support.goldens import PREPROCESSORS
from tests.unit.deploy.test_monitoring import RECORDED

SETTINGS = {
    "COMPOSE_PROFILES": "two-tritons",
    "GATEWAY_TRITON": "triton:8001,triton-2:8001",
    "GATEWAY_REPLICAS": "2",
    "GATEWAY_ADMIN_KEY": "",
    "GATEWAY_CPUS": "1",
    "TRITON_CPUS": "1",
}
LOAD_SECONDS = 75
#: A quota is enforced by periods of a tenth of a second; readings are not taken at their edges.
SLACK = 1.1


class Load:
    """A minute of load, and what containers used of their processors meanwhile."""

    def __init__(self, compose: Compose) -> None:
        limited = (
            compose.inspect("gateway") + compose.inspect("triton") + compose.inspect("triton-2")
        )
        before = {item["Id"]: _cpu_seconds(item["Id"]) for item in limited}
        started = time.monotonic()
        compose(
            *("--profile", "load", "run", "--rm", "-T", "--no-deps", "locust"),
            *("locust", "-f", "loadtests/locustfile.py", "--host", "http://lb:8080", "--headless"),
            *("--users", "16", "--spawn-rate", "16", "--run-time", f"{LOAD_SECONDS}s"),
            *("--batches", "1", "--rows", "8", "--only-summary"),
        )  # exits with 1 where any answer was wrong
        seconds = time.monotonic() - started
        self.cores = {id_: (_cpu_seconds(id_) - then) / seconds for id_, then in before.items()}


@pytest.fixture(scope="module")
def load(compose: Compose) -> Load:
    """The stack as two gateways of one core each and two named Tritons, after a minute of load."""
    compose.configure(**SETTINGS)
    # Prometheus begins anew: samples of containers that it was restarted with linger for minutes.
    compose("rm", "--stop", "--force", "prometheus")
    docker("volume", "rm", f"{PROJECT}_prometheus")
    compose.up()
    return Load(compose)


def test_two_gateways_and_two_tritons_share_the_work(compose: Compose, load: Load) -> None:
    del load
    rows = {
        (sample["metric"]["instance"]): float(sample["value"][1])
        for sample in compose.query("sum by (instance) (gateway_rows_total)")
    }
    assert len(rows) == 2
    assert min(rows.values()) > 0.2 * sum(rows.values()), rows
    inferences = {
        sample["metric"]["instance"]: float(sample["value"][1])
        for sample in compose.query("sum by (instance) (nv_inference_count)")
    }
    assert len(inferences) == 2
    assert min(inferences.values()) > 0.2 * sum(inferences.values()), inferences


def test_limits_hold_under_load(compose: Compose, load: Load) -> None:
    for container in compose.inspect():
        name, host = container["Name"], container["HostConfig"]
        assert not container["State"]["OOMKilled"], name
        assert container["RestartCount"] == 0, name
        if container["Id"] in load.cores:
            assert host["NanoCpus"] == 1_000_000_000, name
            assert load.cores[container["Id"]] < SLACK, name
    assert max(load.cores.values()) > 0.5, "the load was too small to come near any limit"


def test_a_gateway_with_one_core_takes_its_settings_from_it(compose: Compose, load: Load) -> None:
    del load
    for container in compose.containers("gateway"):
        lines = map(json.loads, docker("logs", container).splitlines())
        (limits,) = (line for line in lines if line["event"] == "limits")
        assert (limits["cores"], limits["workers"]) == (1.0, 1)
        listed = docker("top", container, "-o", "pid,args")
        workers = re.findall(r"gateway_preprocessor\.worker (\S+) (\S+)", listed)
        assert workers
        assert len({socket for _, socket in workers}) == len(workers)
        assert all(socket.endswith("/0.sock") for _, socket in workers), "one a preprocessor"


def test_without_a_key_admin_is_closed_to_the_load_balancer(compose: Compose, load: Load) -> None:
    del load
    with compose.client() as client:
        answer = client.post("/admin/models/langid/promote", json={"release": "1"})
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def test_prometheus_scrapes_all_targets(compose: Compose, load: Load) -> None:
    del load
    targets = eventually(lambda: compose.query("up"))
    assert {sample["value"][1] for sample in targets} == {"1"}
    jobs = sorted(sample["metric"]["job"] for sample in targets)
    assert jobs == ["gateway", "gateway", "lb", "prometheus", "triton", "triton"]


def test_every_panel_and_every_rule_has_data(compose: Compose, load: Load) -> None:
    del load
    queries = [query.expression for query in dashboard.queries()] + RECORDED
    assert len(queries) > 30
    eventually(lambda: not _without_data(compose, queries), seconds=60)


def test_every_model_shows_in_the_panels_by_model(compose: Compose, load: Load) -> None:
    del load
    for model in PREPROCESSORS:
        queries = [query.expression for query in dashboard.queries(model)]
        by_model = [query for query in queries if "by (model)" in query]
        # Models whose instances are all of one length have no padding to show.
        asked = [query for query in by_model if "padding" not in query]
        assert not _without_data(compose, asked), model


def test_nothing_but_latency_alerts_and_no_rule_fails(compose: Compose, load: Load) -> None:
    del load
    rules = [
        rule
        for group in httpx.get(f"{compose.prometheus}/api/v1/rules").json()["data"]["groups"]
        for rule in group["rules"]
    ]
    assert len(rules) > len(RECORDED)
    assert {rule["health"] for rule in rules} == {"ok"}
    firing = compose.query('ALERTS{alertstate="firing"}')
    # On two busy cores answers may take longer than the objective allows; nothing else is wrong.
    slow = {"LatencyBudgetBurnsFast", "LatencyBudgetBurnsSlowly"}
    assert {sample["metric"]["alertname"] for sample in firing} <= slow


def _without_data(compose: Compose, queries: list[str]) -> list[str]:
    """Return the queries that yield nothing, or no number."""
    found = {query: [float(s["value"][1]) for s in compose.query(query)] for query in queries}
    return [query for query, seen in found.items() if not seen or any(map(math.isnan, seen))]


def _cpu_seconds(container: str) -> float:
    """Read the CPU time of a container from its cgroup (v1 or v2)."""
    script = "cat /sys/fs/cgroup/cpuacct/cpuacct.usage 2>/dev/null || cat /sys/fs/cgroup/cpu.stat"
    text: Any = docker("exec", container, "sh", "-c", script)
    if found := re.search(r"usage_usec (\d+)", text):
        return int(found[1]) / 1e6
    return int(text) / 1e9
