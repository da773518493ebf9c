"""What of the GPU run needs no GPU: that it works, and that wrong answers are noticed."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import msgspec
import pytest

from loadtests.bert.report import markdown, summary
from loadtests.bert.texts import texts
from loadtests.load.answers import SAMPLE, judge
from loadtests.load.connection import Answer
from loadtests.load.plan import Stamps, Stream, Target
from loadtests.load.requests import Request
from tests.support import program
from tests.support.stack import ROOT

pytestmark = pytest.mark.alone

STAMPS = Stamps("bert", "1", 1, "bert-bench-preprocessor==1.0.0")


def test_a_smoke_run_on_the_cpu(tmp_path: Path) -> None:
    folder, out = tmp_path / "run", tmp_path / "report"
    options = ["--device", "cpu", "--smoke", "--gateways", "2", "--generators", "2"]
    options += ["--instances", "2", "--users", "16", "--batch", "8", "--clients", "4"]
    paths = ["--folder", str(folder), "--out", str(out)]
    printed = program.run("loadtests.gpu", *options, *paths)
    report = json.loads((out / "gpu.json").read_text())
    assert report["command"] == f"python -m loadtests.gpu {' '.join(options)}"
    for name, rows in (("batches", 8), ("singles", 1)):
        assert report["summary"][name]["rows_per_second"] > 0
        assert report["summary"][name]["ratio"] > 0
        (done,) = [each["workloads"][name] for each in report["rounds"]]
        assert done["rows_per_request"] == rows
        assert done["rows_per_execution"] >= done["rows_per_call"] >= 1
        assert done["cores"]["instances"] > 0
    text = (out / "gpu.md").read_text()
    assert text in printed
    for secret in (str(ROOT), str(tmp_path), socket.gethostname()):
        assert secret not in text + (out / "gpu.json").read_text()
    assert not program.left_in(tmp_path)


def test_every_run_has_the_same_texts() -> None:
    assert texts(50) == texts(50)
    assert texts(50) != texts(50, seed=1)
    lengths = {len(text.split()) for text in texts(1000)}
    assert (min(lengths), max(lengths)) == (4, 40)


@pytest.mark.parametrize(
    ("scores", "wrong"),
    [([0.305, 0.695], None), ([0.4, 0.6], "instance 3"), ([0.3, 0.7, 0.0], "instance 3")],
)
def test_scores_are_compared(tmp_path: Path, scores: list[float], wrong: str | None) -> None:
    expected = tmp_path / "scores.json"
    expected.write_text("[[0.1, 0.9], [0.1, 0.9], [0.1, 0.9], [0.3, 0.7]]")
    target = Target("bert", STAMPS)
    judging = judge(Stream("load", [target], "scores", 1, 1, "", expected=str(expected)))
    body = msgspec.json.encode({"output": {"scores": scores}} | msgspec.to_builtins(STAMPS))
    answer, request = Answer(200, body, len(body)), Request(b"", target, 3)
    told = [judging.wrong(answer, request) for _ in range(SAMPLE)]
    assert not any(told[:-1])
    assert told[-1] is None if wrong is None else wrong in str(told[-1])


@pytest.mark.parametrize(("singles", "verdict"), [(15_001.0, "met"), (14_999.0, "**missed**")])
def test_the_report_says_whether_an_aim_is_met(singles: float, verdict: str) -> None:
    done = {
        "users": 8,
        "rows_per_request": 1,
        "rows_per_second": singles,
        "latency_ms": {"p50": 1.0, "p99": 2.0},
        "cores": dict.fromkeys(("gateway", "triton", "instances", "generator"), 1.0),
        "rows_per_call": 2.0,
        "rows_per_execution": 3.0,
    }
    rounds = [{"raw": {"64": 10_000.0, "128": 30_000.0}, "workloads": {"singles": done}}] * 2
    total = summary(rounds)
    assert total["singles"]["ratio"] == singles / 30_000
    text = markdown({"command": "c", "facts": {}, "rounds": rounds, "summary": total})
    assert f"15,000 rows/s: {verdict}" in text
