"""`gateway tune` for real: measured through HTTP and Triton, written, locked again and served."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from gateway.releases import manifest
from gateway.triton import placement
from tests.support.goldens import cases
from tests.support.repository import copied
from tests.support.stack import GATEWAY, ROOT, serve


def run(*command: str) -> str:
    done = subprocess.run(
        [GATEWAY, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_measure_write_lock_and_serve(tmp_path: Path) -> None:
    repository = copied(tmp_path / "repository", ["tumor"])
    folder, run_dir = repository / "tumor", tmp_path / "run"
    before = (folder / placement.FILE).read_text()
    (folder / manifest.FILE).write_text("# kept\n" + (folder / manifest.FILE).read_text())
    inputs = tmp_path / "inputs.json"
    inputs.write_text(json.dumps([case.golden.input for case in cases("tumor")]))
    # The present configuration takes more cores than it may, so that another one must win.
    (folder / placement.FILE).write_text(before.replace("count: 1 }", "count: 2 }"))
    where = ("--repository", str(repository))
    shown = run(
        *("tune", "tumor", *where, "--run-dir", str(run_dir), "--inputs", str(inputs)),
        *("--cores", "1", "--rows", "8,32", "--delay-us", "50", "--users", "4"),
        *("--seconds", "0.3", "--rounds", "2", "--slo-ms", "5000", "--write"),
    )
    assert "2 candidates on 1 cores" in shown
    assert "skipped the present 2 × 1, 64 rows, 0 µs: 2 threads would share 1 cores" in shown
    assert shown.count("1 × 1  ") == 2
    assert shown.count("BEST") == 1
    assert "gateway lock tumor --relock 1" in shown
    assert not list(run_dir.glob("tune-*"))

    config = (folder / placement.FILE).read_text()
    wanted = before.replace("delay_microseconds: 0", "delay_microseconds: 50")
    assert config == wanted
    declared = (folder / manifest.FILE).read_text()
    assert declared.startswith("# kept\n")
    rows = manifest.read(repository)["tumor"].releases["1"].batching.max_rows
    assert rows in {8, 32}

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
