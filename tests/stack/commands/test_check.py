"""`gateway check`: a table of verdicts, and an exit code that a pipeline can trust."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.repository import copied
from tests.support.stack import GATEWAY, ROOT


def check(tmp_path: Path) -> subprocess.CompletedProcess[str]:
    paths = ("--repository", str(tmp_path / "repository"), "--run-dir", str(tmp_path / "run"))
    log = ("--log-file", str(tmp_path / "log.json"))
    command = [GATEWAY, "check", "--seconds", "120", *paths, *log]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_aligned_drifted_and_broken(tmp_path: Path) -> None:
    repository = copied(tmp_path / "repository", ["tumor", "digits"])
    done = check(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 aligned, 0 failed" in done.stdout

    with (repository / "tumor/config.pbtxt").open("a") as config:
        config.write("# one comment more\n")
    broken = (repository / "tumor/releases.toml").read_text() + "9 = 1\n"
    (repository / "langid").mkdir()
    (repository / "langid/releases.toml").write_text(broken)
    done = check(tmp_path)
    assert done.returncode == 1
    assert "1 aligned, 2 failed" in done.stdout
    (row,) = (line for line in done.stdout.splitlines() if line.startswith("tumor"))
    assert "rejected" in row
    assert "config.pbtxt changed" in row
    (row,) = (line for line in done.stdout.splitlines() if line.startswith("langid"))
    assert "broken" in row
    assert "releases.toml:" in row
    assert "Traceback" not in done.stderr
