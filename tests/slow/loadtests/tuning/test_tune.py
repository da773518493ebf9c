"""`gateway tune` for real: measured through HTTP and Triton; its advice is followed and served."""

from __future__ import annotations

import json
import re
from pathlib import Path

from google.protobuf import text_format

from gateway.triton.configs import parse
from loadtests.tuning import placement
from tests.support.cli import gateway
from tests.support.goldens import cases
from tests.support.repository import copied
from tests.support.stack import serve


def run(*command: str) -> str:
    done = gateway(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_measure_and_follow_the_advice(tmp_path: Path) -> None:
    repository = copied(tmp_path / "repository", ["tumor"])
    folder, run_dir = repository / "tumor", tmp_path / "run"
    config = folder / placement.FILE
    # The present configuration takes more cores than it may, so that another one must win.
    config.write_text(config.read_text().replace("count: 1 }", "count: 2 }"))
    before = config.read_text()
    inputs = tmp_path / "inputs.json"
    inputs.write_text(json.dumps([case.golden.input for case in cases("tumor")]))
    where = ("--repository", str(repository))
    shown = run(
        *("tune", "tumor", *where, "--run-dir", str(run_dir), "--inputs", str(inputs)),
        *("--cores", "1", "--rows", "8,32", "--delay-us", "50", "--users", "4"),
        *("--seconds", "0.3", "--rounds", "2", "--slo-ms", "5000"),
    )
    assert "2 candidates on 1 cores" in shown
    assert "skipped the present 2 × 1, 64 rows, 0 µs: 2 threads would share 1 cores" in shown
    assert shown.count("1 × 1  ") == 2
    assert shown.count("BEST") == 1
    assert not list(run_dir.glob("tune-*"))
    assert config.read_text() == before

    _, _, advice = shown.partition(f"set in {config}:\n")
    fields, _, rest = advice.partition("then lock it again")
    assert "gateway lock tumor --relock 1" in rest
    assert re.search(r"under \[releases.1\]: batching.max_rows = (8|32)$", rest, re.MULTILINE)
    merged, part = parse(config, before), parse(config, fields)
    merged.instance_group.clear()
    merged.MergeFrom(part)
    config.write_text(text_format.MessageToString(merged))
    run("lock", "tumor", "--relock", "1", *where)
    stack = serve(tmp_path / "served", repository=str(repository))
    try:
        with stack.client() as client:
            case = cases("tumor")[0]
            answer = client.post("/tumor_single_predict", json=case.single)
            assert answer.status_code == 200
            assert case.wrong(answer.json()["output"]) is None
    finally:
        stack.interrupt()
