"""A real Prometheus scrapes a real gateway under light load: every query has an answer.

The load balancer is not part of this stack: the compose stack's test asks the queries about it.
"""

from __future__ import annotations

import math
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest
import yaml

from deploy.grafana import dashboard
from tests.deploy.test_monitoring import FOLDER, RECORDED, tool
from tests.support.goldens import PREPROCESSORS, cases
from tests.support.stack import Stack, serve

LOAD_SECONDS, PATIENCE_SECONDS = 20, 90


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def configuration(targets: dict[str, str]) -> dict[str, Any]:
    """Return the stack's own configuration with these targets instead of names in DNS."""
    read: dict[str, Any] = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    read["rule_files"] = [str(FOLDER / pattern) for pattern in read["rule_files"]]
    read["scrape_configs"] = [
        {"job_name": job["job_name"], "static_configs": [{"targets": [targets[job["job_name"]]]}]}
        for job in read["scrape_configs"]
        if job["job_name"] in targets
    ]
    return read


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Prometheus with a gateway whose models are all asked, singles and batches."""
    program, folder = tool("prometheus"), tmp_path_factory.mktemp("prometheus")
    triton, port = free_port(), free_port()
    stack = serve(folder / "gateway", triton_metrics_port=str(triton))
    own = f"127.0.0.1:{port}"
    found = {"gateway": stack.url.removeprefix("http://"), "triton": f"127.0.0.1:{triton}"}
    given = folder / "prometheus.yml"
    given.write_text(yaml.safe_dump(configuration(found | {"prometheus": own})))
    options = (f"--config.file={given}", f"--storage.tsdb.path={folder / 'data'}")
    ended = Event()
    with (folder / "prometheus.log").open("wb") as log, ThreadPoolExecutor(1) as pool:
        process = subprocess.Popen(
            [program, *options, f"--web.listen-address={own}"], stdout=log, stderr=log
        )
        load = pool.submit(ask, stack, ended)
        try:
            with httpx.Client(base_url=f"http://{own}", timeout=10) as client:
                time.sleep(LOAD_SECONDS)
                assert process.poll() is None, Path(log.name).read_text()
                yield client
        finally:
            ended.set()
            wait([load])
            process.terminate()
            process.wait()
            stack.interrupt()
    load.result()


def ask(stack: Stack, ended: Event) -> None:
    """Ask every model until the end."""
    with stack.client() as client:
        while not ended.wait(0.1):
            for model in PREPROCESSORS:
                case = cases(model)[0]
                inputs = [each.golden.input for each in cases(model)]
                for path, body in (
                    (f"/{model}_single_predict", case.single),
                    (f"/{model}_batch_predict", {"inputs": inputs}),
                ):
                    answer = client.post(path, json=body)
                    assert answer.status_code == 200, answer.text


def values(client: httpx.Client, query: str) -> list[float]:
    """Return what a query yields now. Fails where Prometheus refuses it."""
    answer = client.get("/api/v1/query", params={"query": query})
    assert answer.status_code == 200, f"{query}: {answer.text}"
    return [float(series["value"][1]) for series in answer.json()["data"]["result"]]


def without_data(client: httpx.Client, queries: list[str]) -> list[str]:
    found = {query: values(client, query) for query in queries}
    return [query for query, seen in found.items() if not seen or any(map(math.isnan, seen))]


def test_every_panel_and_every_rule_has_data(prometheus: httpx.Client) -> None:
    asked = [query.expression for query in dashboard.queries()] + RECORDED
    queries = [query for query in asked if "haproxy_" not in query]
    assert len(queries) > len(asked) - 3
    deadline = time.monotonic() + PATIENCE_SECONDS
    while missing := without_data(prometheus, queries):
        assert time.monotonic() < deadline, missing
        time.sleep(2)


def test_every_model_shows_in_the_panels_by_model(prometheus: httpx.Client) -> None:
    for model in PREPROCESSORS:
        queries = [query.expression for query in dashboard.queries(model)]
        by_model = [query for query in queries if "by (model)" in query and "haproxy_" not in query]
        padded = [query for query in by_model if "padding" not in query]
        assert not without_data(prometheus, padded), model


def test_no_alert_fires_and_no_rule_fails_on_a_healthy_stack(prometheus: httpx.Client) -> None:
    assert values(prometheus, 'count(ALERTS{alertstate="firing"}) or vector(0)') == [0]
    groups = prometheus.get("/api/v1/rules").json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) > len(RECORDED)
    assert {rule["health"] for rule in rules} == {"ok"}, [r for r in rules if r["health"] != "ok"]
    targets = prometheus.get("/api/v1/targets").json()["data"]["activeTargets"]
    assert {target["health"] for target in targets} == {"up"}
