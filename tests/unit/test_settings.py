"""Settings: precedence, bad values that name their key, and a documentation that is complete."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from pydantic import ValidationError

from gateway.cli import main
from gateway.settings import Settings
from tests.support.stack import GATEWAY, ROOT


def test_command_line_beats_environment_beats_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text("port = 1\nqueue_rows = 4000\nlog_level = 'debug'\n")
    monkeypatch.setenv("GATEWAY_CONFIG", str(file))
    monkeypatch.setenv("GATEWAY_PORT", "2")
    monkeypatch.setenv("GATEWAY_LOG_LEVEL", "error")
    settings = Settings(port=3)
    assert (settings.port, settings.log_level, settings.queue_rows) == (3, "error", 4000)


def serve(*options: str) -> Result:
    """Run `gateway serve` in this process, where it ends before anything has started."""
    return CliRunner().invoke(main, ["serve", *options])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "70000"),
        ("triton", "localhost"),
        ("triton", "dns:tritons"),
        ("triton", "dns::8001"),
        ("triton", "dns:8001"),
        ("log_level", "loud"),
        ("queue_rows", "0"),
        ("max_batch_rows", "99999"),
    ],
)
def test_a_bad_value_stops_the_start_and_names_the_key(name: str, value: str) -> None:
    done = serve(f"--{name.replace('_', '-')}", value)
    assert done.exit_code in {1, 2}
    assert name.replace("_", "-") in done.output.replace("_", "-")
    assert isinstance(done.exception, SystemExit)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"triton_ca": "ca"}, "set triton, too"),
        ({"triton": "h:1", "triton_ca": "ca", "triton_key": "key"}, "set both"),
        ({"triton": "h:1", "triton_certificate": "c", "triton_key": "key"}, "needs triton_ca"),
        ({"triton": "h:1", "triton_ca": "absent"}, "triton_ca"),
    ],
)
def test_files_for_tls_are_there_and_belong_together(
    tmp_path: Path, given: dict[str, str], told: str
) -> None:
    for name in ("ca", "c", "key"):
        (tmp_path / name).touch()
    files = {
        name: value if name == "triton" else str(tmp_path / value) for name, value in given.items()
    }
    with pytest.raises(ValueError, match=told):
        Settings(**files)


def test_a_bad_value_in_a_process_of_its_own() -> None:
    command = [GATEWAY, "serve", "--port", "seventy"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in {1, 2}
    assert "port" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_key_in_the_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gateway.toml").write_text("prot = 1\n")
    monkeypatch.setenv("GATEWAY_CONFIG", str(tmp_path / "gateway.toml"))
    with pytest.raises(ValidationError, match="prot"):
        Settings()


@pytest.mark.parametrize(("text", "told"), [("port = = 1", "line 1"), (None, "does not exist")])
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, told: str
) -> None:
    file = tmp_path / "my.toml"
    if text is not None:
        file.write_text(text)
    monkeypatch.setenv("GATEWAY_CONFIG", str(file))
    done = serve()
    assert done.exit_code == 1
    assert told in done.output
    assert "my.toml" in done.output
    assert isinstance(done.exception, SystemExit)


def test_a_port_in_use_is_told_before_triton_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [GATEWAY, "serve", "--port", str(port), "--run-dir", str(tmp_path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"port {port}" in done.stderr
    assert "starting Triton" not in done.stdout


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


def test_every_setting_is_documented_and_an_option() -> None:
    documented = (ROOT / "docs/settings.md").read_text()
    shown = serve("--help").output
    for name, field in Settings.model_fields.items():
        assert f"| `{name}` |" in documented, name
        assert f"--{name.replace('_', '-')}" in shown
        assert field.description


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["--repository", "/nowhere"], "the model repository does not exist"),
        (["--models", "minilm,unheard-of"], "unheard-of"),
        (["--models-python", "/nowhere/python"], "/nowhere/python"),
    ],
)
def test_a_start_that_cannot_succeed_says_why(
    settings: list[str], told: str, tmp_path: Path
) -> None:
    command = [GATEWAY, "serve", "--port", "0", "--run-dir", str(tmp_path), *settings]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_an_empty_environment_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ADMIN_KEY", "MODELS", "QUEUE_ROWS", "OFFLINE"):
        monkeypatch.setenv(f"GATEWAY_{name}", "")
    given = Settings()
    assert (given.admin_key, given.models, given.queue_rows, given.offline) == (
        None,
        (),
        2048,
        False,
    )


@pytest.mark.parametrize(("flag", "offline"), [("--offline", True), ("--no-offline", False)])
def test_a_flag_needs_no_value(
    flag: str, offline: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[bool] = []
    monkeypatch.setenv("GATEWAY_OFFLINE", "true")
    monkeypatch.setattr("gateway.commands.serve.logs.configure", lambda s: seen.append(s.offline))
    serve(flag, "--repository", str(tmp_path / "absent"))
    assert seen == [offline]
