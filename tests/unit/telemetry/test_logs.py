"""The log: one JSON object a line, and nothing of what clients sent."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.stack import ROOT

SCRIPT = """
import logging, sys
import structlog
from pathlib import Path
from gateway.settings import Settings
from gateway.telemetry import logs

def fail(payload):
    raise ValueError("broken")

logs.configure(Settings(log_file=Path(sys.argv[1])))
try:
    fail("the patient's record")
except ValueError as error:
    structlog.get_logger().error("preprocess failed", request_id="r1", exc_info=error)
logging.getLogger("a_package.module").warning("told %s", "so", extra={"port": 7})
structlog.get_logger().debug("too quiet")
"""


def test_lines_are_json_without_request_content(tmp_path: Path) -> None:
    log = tmp_path / "folder/log.json"
    subprocess.run([sys.executable, "-c", SCRIPT, str(log)], cwd=ROOT, check=True)
    failed, library = (json.loads(line) for line in log.read_text().splitlines())
    assert (failed["event"], failed["request_id"]) == ("preprocess failed", "r1")
    assert failed["exception"][0]["exc_type"] == "ValueError"
    assert "patient" not in log.read_text()
    assert (library["event"], library["logger"], library["port"]) == (
        "told so",
        "a_package.module",
        7,
    )
    assert library["level"] == logging.getLevelName(logging.WARNING).lower()


REQUESTS = """
import sys
from pathlib import Path
from gateway.settings import Settings
from gateway.telemetry import logs

requests = logs.configure(Settings(log_file=Path(sys.argv[1]), log_level=sys.argv[2]))
for status in (200, 503):
    requests.write(logs.Answered("r1", "POST", "/m_single_predict", status, 1.5, "::1"))
    probed = logs.Answered("r2", "GET", "/readyz", status, 0.1, "::1")
    requests.write(probed, probe=True)
"""


def test_probes_are_logged_for_debugging_alone(tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    subprocess.run([sys.executable, "-c", REQUESTS, str(log), "debug"], cwd=ROOT, check=True)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    levels = [(line["path"], line["status"], line["level"]) for line in lines]
    assert levels == [
        ("/m_single_predict", 200, "info"),
        ("/readyz", 200, "debug"),
        ("/m_single_predict", 503, "error"),
        ("/readyz", 503, "debug"),
    ]


@pytest.mark.parametrize(("level", "statuses"), [("info", [200, 503]), ("error", [503])])
def test_requests_have_a_line_each(tmp_path: Path, level: str, statuses: list[int]) -> None:
    log = tmp_path / "log.json"
    subprocess.run([sys.executable, "-c", REQUESTS, str(log), level], cwd=ROOT, check=True)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["status"] for line in lines] == statuses
    for line in lines:
        written = datetime.fromisoformat(line.pop("timestamp"))
        assert timedelta() <= datetime.now(UTC) - written < timedelta(minutes=1)
        assert line == {
            "request_id": "r1",
            "method": "POST",
            "path": "/m_single_predict",
            "status": line["status"],
            "ms": 1.5,
            "remote": "::1",
            "event": "request",
            "level": "info" if line["status"] == 200 else "error",
        }
