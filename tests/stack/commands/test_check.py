"""`gateway check`: a table of verdicts, and an exit code that a pipeline can trust."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from gateway.preprocessing.environments import digest
from gateway.releases import lock
from gateway.settings import Settings
from tests.support.cli import gateway
from tests.support.repository import copied
from tests.support.stack import ROOT, Stack


def check(tmp_path: Path, **settings: Path) -> subprocess.CompletedProcess[str]:
    given = {"repository": tmp_path / "repository", "log_file": tmp_path / "log.json"} | settings
    options = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    return gateway("check", "--seconds", "120", *options)


def row(done: subprocess.CompletedProcess[str], model: str) -> str:
    (found,) = (line for line in done.stdout.splitlines() if line.startswith(model))
    return found


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
    assert "rejected" in row(done, "tumor")
    assert "config.pbtxt changed" in row(done, "tumor")
    assert "broken" in row(done, "langid")
    assert "releases.toml:" in row(done, "langid")
    assert "Traceback" not in done.stderr


def test_beside_a_running_gateway(tmp_path: Path, stack: Stack) -> None:
    """With the very settings of that gateway, its working folder and port included."""
    copied(tmp_path / "repository", ["tumor"])
    port = stack.url.rpartition(":")[2]
    settings = {"run_dir": stack.run_dir, "port": port}
    options = ["--repository", str(tmp_path / "repository")]
    options += ["--log-file", str(tmp_path / "log.json")]
    done = gateway("check", *options, settings=settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 aligned, 0 failed" in done.stdout
    with stack.client() as client:
        assert client.get("/readyz").json()["status"] == "ready"


def test_a_wheel_that_this_machine_lacks(tmp_path: Path) -> None:
    """An environment that was built earlier hides it; a prebuilt one needs no wheel."""
    repository = copied(tmp_path / "repository", ["tumor"])
    wheelhouse = tmp_path / "wheelhouse"
    shutil.copytree(ROOT / Settings().wheelhouse, wheelhouse)
    for wheel in wheelhouse.glob("tumor_preprocessor-*.whl"):
        wheel.unlink()
    done = check(tmp_path, wheelhouse=wheelhouse)
    assert done.returncode == 1
    assert " incomplete " in row(done, "tumor")
    assert row(done, "tumor").endswith(
        f"{wheelhouse} lacks the locked wheel of tumor-preprocessor==1.0.0:"
        " `gateway wheels --locked` gets it"
    )
    found = lock.read(repository / "tumor")
    assert found
    name = digest(found.releases["1"].requirements)
    (tmp_path / "prebuilt").mkdir()
    (tmp_path / "prebuilt" / name).symlink_to(ROOT / Settings().environments / name)
    done = check(tmp_path, wheelhouse=wheelhouse, prebuilt_environments=tmp_path / "prebuilt")
    assert done.returncode == 0, done.stdout
