"""The comparison runs for real, in its quick form: every arm starts, answers, is measured."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.bench import results, scenario
from loadtests.bench.deployment import GATEWAYS
from tests.support import program
from tests.support.stack import ROOT

pytestmark = pytest.mark.alone

SINGLES, BATCHES, SCALING = "10-singles", "20-batches", "60-scaling"
STARTS = {"start", "start-generated"}
STAGES = {"queue", "preprocess", "infer", "postprocess"}


def test_a_quick_run_measures_every_arm(tmp_path: Path) -> None:
    program.run("loadtests.bench", "--quick", "--out", str(tmp_path))
    found = results.read(tmp_path / "results.json")
    measured = {each.name: each for each in found.scenarios}
    assert set(measured) == {SINGLES, BATCHES, SCALING, *STARTS}
    for each in scenario.those_of("quick"):
        assert {window.arm for window in measured[each.name].windows} == set(each.arms)
    windows = [window for name in (SINGLES, BATCHES, SCALING) for window in measured[name].windows]
    for window in windows:
        assert window.errors == 0
        assert window.rate > 0
        assert window.latency
        assert window.latency.p50 <= window.latency.p99 <= window.latency.most
        arms = sum(spent for name, spent in window.cpu_seconds.items() if name != "others")
        assert arms > window.cpu_seconds["generator"] >= 0  # in hundredths of a second
        assert min(window.pss_bytes.values()) > 0
        assert set(window.stage_ms) == (STAGES if window.arm in GATEWAYS else set())
        assert all(taken > 0 for taken in window.stage_ms.values())
    assert sum(window.cpu_seconds["generator"] for window in windows) > 0
    assert {limit.rows_a_batch for limit in measured[SINGLES].limits} == {4, 8, 16}
    assert {window.point for window in measured[SCALING].windows} == {"1", "3"}
    assert measured[SCALING].random_weights
    assert not measured[SINGLES].random_weights
    assert {each.arm for each in found.agreements} == set(scenario.read(SINGLES).arms)
    assert all(each.difference < 1e-3 for each in found.agreements)
    assert {arm.name for arm in found.arms} == set(scenario.read(SINGLES).arms)
    text = (tmp_path / "results.json").read_text()
    for window in windows:  # any two letters are in so much base64
        assert window.latency
        text = text.replace(window.latency.histogram, "")
    for secret in (str(ROOT), str(tmp_path), socket.gethostname()):
        assert secret not in text
    assert not program.left_in(tmp_path)


def test_an_unknown_scenario_is_named() -> None:
    command = [sys.executable, "-m", "loadtests.bench", "singels"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no scenario 'singels'" in done.stderr
