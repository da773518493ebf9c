"""A start as in a container: JSON alone on stdout, each model loaded once, state in one folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.commands.serve import address
from tests.support.stack import GATEWAY, ROOT, START_SECONDS, STOP_SECONDS


@pytest.mark.parametrize("processes", [1, 2])
def test_a_start_with_the_log_on_stdout(tmp_path: Path, processes: int) -> None:
    """`langid` has two versions, which Triton gets in one load."""
    settings = {
        "port": "0",
        "models": "langid",
        "processes": str(processes),
        "run_dir": str(tmp_path / "run"),
        "state_dir": str(tmp_path / "state"),
        "log_stream": "stdout",
        "log_file": "",
    }
    output, errors = tmp_path / "stdout", tmp_path / "stderr"
    with output.open("wb") as stdout, errors.open("wb") as stderr:
        process = subprocess.Popen(
            [GATEWAY, "serve"],
            cwd=ROOT,
            env=os.environ | {f"GATEWAY_{name.upper()}": each for name, each in settings.items()},
            stdout=stdout,
            stderr=stderr,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not any("ready at http" in event.get("text", "") for event in read(output)):
            assert time.monotonic() < deadline
            assert process.poll() is None, errors.read_text()
            time.sleep(0.2)
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(STOP_SECONDS)
    assert code == 0
    assert errors.read_text() == ""
    events = {event["event"] for event in read(output)}
    assert {"limits", "progress", "model ready", "release aligned"} <= events
    assert json.loads((tmp_path / "state/traffic/langid.json").read_bytes()) == {"1": 50, "2": 50}
    log = (tmp_path / "run/triton/triton.log").read_text()
    loads = [log.count(f'"loading: langid:{number}"') for number in (1, 2)]
    assert loads == [1, 1] if processes == 1 else max(loads) <= processes  # each gateway asks


def read(path: Path) -> list[dict[str, Any]]:
    """Read JSON objects, one a line; the last line may still be written."""
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:8080"),  # noqa: S104 - not bound
        ("::", "http://[::1]:8080"),
        ("gateway.example", "http://gateway.example:8080"),
    ],
)
def test_the_banner_names_an_address_that_can_be_opened(host: str, expected: str) -> None:
    assert address(host, 8080) == expected
