"""Rules, alerts and dashboard: promtool's tests, and that everything they name exists."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel, RowPanel
from prometheus_client.metrics import MetricWrapperBase

from deploy.grafana import dashboard
from gateway.telemetry import metrics
from tests.support.compose import demanded
from tests.support.stack import ROOT

FOLDER = ROOT / "deploy/prometheus"
PAGE = (ROOT / "docs/monitoring.md").read_text()
TESTS = sorted((FOLDER / "tests").glob("*.yml"))
PROMTOOL_SECONDS = 300
#: What the /metrics of a live tritonserver 2.51.0 shows on a host without a GPU.
TRITON = frozenset(
    (
        *("nv_inference_request_success", "nv_inference_request_failure", "nv_inference_count"),
        *("nv_inference_exec_count", "nv_inference_request_duration_us"),
        *("nv_inference_queue_duration_us", "nv_inference_compute_input_duration_us"),
        *("nv_inference_compute_infer_duration_us", "nv_inference_compute_output_duration_us"),
        *("nv_inference_pending_request_count", "nv_pinned_memory_pool_total_bytes"),
        *("nv_pinned_memory_pool_used_bytes", "nv_cpu_utilization"),
        *("nv_cpu_memory_total_bytes", "nv_cpu_memory_used_bytes"),
    )
)
#: What is used of what HAProxy 2.6 shows.
HAPROXY = frozenset({"haproxy_backend_active_servers"})
PROMETHEUS = frozenset({"up", "ALERTS"})
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
WORDS = frozenset({"and", "or", "unless", "bool", "by", "on", "group_left", "ignoring", "without"})


def rules(name: str) -> list[dict[str, Any]]:
    read = yaml.safe_load((FOLDER / f"rules/{name}.yml").read_text())
    return [rule for group in read["groups"] for rule in group["rules"]]


ALERTS, RECORDS = rules("alerts"), rules("recording")
RECORDED = [rule["record"] for rule in RECORDS]
EXPRESSIONS = [rule["expr"] for rule in (*ALERTS, *RECORDS)] + [
    query.expression for query in dashboard.queries()
]


def tool(name: str) -> str:
    """Find a program of Prometheus by its variable or on the path; skip the test without it."""
    found = os.environ.get(name.upper()) or shutil.which(name)
    if not found:
        reason = f"no {name}: put it on PATH, or name it in {name.upper()}"
        if demanded():
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def promtool(*arguments: str) -> None:
    done = subprocess.run(
        [tool("promtool"), *arguments],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        timeout=PROMTOOL_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def named(expression: str) -> set[str]:
    """Return the metrics that a query names."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", bare)
    bare = re.sub(r"\b(?:by|on|ignoring|without|group_left)\s*\([^)]*\)", "", bare)
    words = re.findall(r"(?<![\w.:])[a-zA-Z_:][\w:]*\b(?!\s*\()", bare)
    return set(words) - WORDS


def ours() -> set[str]:
    """Return the names of the gateway's samples."""
    families = [
        family
        for metric in vars(metrics).values()
        if isinstance(metric, MetricWrapperBase)
        for family in metric.describe()
    ]
    return {family.name + suffix for family in families for suffix in SUFFIXES[family.type]}


def test_promtool_accepts_the_configuration() -> None:
    promtool("check", "config", "prometheus.yml")


def test_promtool_accepts_every_panels_query(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": query.expression}
        for number, query in enumerate(dashboard.queries("m"))
    ]
    group = {"name": "panels", "rules": rules}
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [group]}))
    promtool("check", "rules", str(tmp_path / "panels.yml"))


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.stem)
def test_alerts_fire_and_stay_quiet(file: Path) -> None:
    promtool("test", "rules", str(file))


def test_every_alert_is_tested_firing_and_quiet() -> None:
    fires, quiet = set(), set()
    for file in TESTS:
        for test in yaml.safe_load(file.read_text())["tests"]:
            for check in test["alert_rule_test"]:
                (fires if check["exp_alerts"] else quiet).add(check["alertname"])
                if test["name"].startswith("quiet"):
                    assert not check["exp_alerts"]
    names = {alert["alert"] for alert in ALERTS}
    assert fires == quiet == names


def test_every_metric_that_is_named_exists() -> None:
    known = ours() | set(RECORDED) | TRITON | HAPROXY | PROMETHEUS
    for expression in EXPRESSIONS:
        assert named(expression) <= known, expression
    assert len(set().union(*map(named, EXPRESSIONS))) > 40


def test_every_recorded_series_is_used() -> None:
    used = set().union(*(named(expression) for expression in EXPRESSIONS))
    assert set(RECORDED) <= used


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_alerts_say_what_to_do(alert: dict[str, Any]) -> None:
    name, notes = alert["alert"], alert["annotations"]
    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert "for" in alert or "increase" in alert["expr"]
    assert notes.keys() == {"summary", "description", "runbook"}
    assert len(notes["description"]) > 150
    assert notes["runbook"] == f"docs/monitoring.md#{name.lower()}"
    section = re.search(rf"(?ms)^### {name}$(.*?)(?=^##|\Z)", PAGE)
    assert section, "it has no runbook"
    assert len(section[1]) > 150


def test_objectives_are_at_a_bucket_and_documented() -> None:
    text = (FOLDER / "rules/recording.yml").read_text()
    bounds = set(
        re.findall(r'burnrate\w+\n.*?gateway_request_seconds_bucket.*?le="(.*?)"', text, re.DOTALL)
    )
    assert len(bounds) == 1, "all windows share one objective"
    assert float(bound := bounds.pop()) in metrics.SECONDS
    (long,) = set(re.findall(r'gateway_queue_deadline_ratio_bucket\{le="(.*?)"', text))
    assert float(long) in metrics.SHARES
    budgets = dict(
        re.findall(r"record: gateway:(\w+)_objective:budget\n\s+expr: vector\((.*)\)", text)
    )
    assert f"{100 * (1 - float(budgets['latency'])):g} % of single predictions" in PAGE
    assert f"within {bound} s" in PAGE
    assert f"{100 * (1 - float(budgets['availability'])):g} % of predictions" in PAGE


def test_every_panel_and_recorded_series_is_documented() -> None:
    for _, row in dashboard.ROWS:
        for shown in row:
            assert f"| {shown.title} |" in PAGE
    for name in RECORDED:
        assert f"`{re.sub(r'(?<=burnrate).*', '', name)}" in PAGE


def test_the_committed_dashboard_is_what_the_script_writes() -> None:
    assert dashboard.FILE.read_text() == dashboard.text(), "run python -m deploy.grafana.dashboard"


def test_the_dashboard_reads_back_into_the_library() -> None:
    register_default_plugins()
    board = json.loads(dashboard.FILE.read_text())
    read = Dashboard.from_json(board)
    assert json.loads(json.dumps(read, cls=JSONEncoder)) == board
    panels = [panel for panel in read.panels or [] if isinstance(panel, Panel)]
    assert len({panel.id_val for panel in read.panels or []}) == len(read.panels or [])
    asked = [target.expr for panel in panels for target in panel.targets or []]
    assert len(asked) == len(dashboard.queries())
    assert sum(isinstance(panel, RowPanel) for panel in read.panels or []) == 5
    for panel in panels:
        place = panel.grid_pos
        assert place is not None
        assert place.x + place.w <= 24
        assert panel.description


def test_provisioning_names_what_the_dashboard_uses() -> None:
    folder = ROOT / "deploy/grafana/provisioning"
    (source,) = yaml.safe_load((folder / "datasources/prometheus.yml").read_text())["datasources"]
    scraping = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["global"]
    assert source["type"] == "prometheus"
    assert source["jsonData"]["timeInterval"] == scraping["scrape_interval"]
    (provider,) = yaml.safe_load((folder / "dashboards/gateway.yml").read_text())["providers"]
    assert Path(provider["options"]["path"]).name == dashboard.FILE.parent.name
