"""`gateway release`: what it shows, what it changes, and what it says when it cannot."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from gateway.releases.manifest import FILE, Shadow, read_one
from tests.support.repository import declared
from tests.support.stack import GATEWAY, ROOT, Stack


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two models; `digits` has two releases."""
    return declared(tmp_path / "models")


def run(repository: Path, command: str, *arguments: str) -> Result:
    return CliRunner().invoke(
        main, ["release", command, *arguments, "--repository", str(repository)]
    )


def done(repository: Path, command: str, *arguments: str) -> str:
    """Run a command that only declares: what gateways make of it is in `test_effect.py`."""
    result = run(repository, command, *arguments, *(() if command == "list" else ["--no-wait"]))
    assert result.exit_code == 0, result.output
    return result.output


def rows(output: str) -> list[str]:
    return [" ".join(line.split()) for line in output.splitlines()]


def test_changes_are_made_and_told(repository: Path) -> None:
    path = repository / "digits" / FILE
    told = done(repository, "traffic", "digits", "1=90", "2=10")
    assert told == "digits: traffic 1=90, 2=10; shadow none: declared\n"
    told = done(repository, "shadow", "digits", "2", "--share", "0.1", "--compare", "preprocessor")
    assert told.endswith("; shadow 2 for 0.1 of the requests (preprocessor): declared\n")
    assert read_one(path).shadow == Shadow("2", 0.1, "preprocessor")
    assert "1=0, 2=100;" in done(repository, "promote", "digits", "2")
    assert read_one(path).traffic == {"1": 0, "2": 100}
    assert "1=90, 2=10;" in done(repository, "rollback", "digits")
    assert "shadow none: " in done(repository, "shadow", "digits", "none")
    assert read_one(path).shadow is None


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no gateway answer at the local port."""
    monkeypatch.setenv("GATEWAY_PORT", "9")


@pytest.mark.usefixtures("nobody")
def test_list(repository: Path) -> None:
    header, first, second, tumor, unknown = rows(done(repository, "list"))
    assert header == "model release version preprocessor declared shadow last change"
    assert unknown.startswith("what is applied is not known: http://127.0.0.1:9/models does not")
    assert first == "digits 1 1 digits-preprocessor==1.0.0 100% - -"
    assert second == "digits 2 1 digits-preprocessor==2.0.0 0% - -"
    assert tumor.startswith("tumor 1 1 ")
    done(repository, "traffic", "digits", "1=2", "2=1")
    done(repository, "shadow", "digits", "2", "--share", "0.25")
    _, first, second, _ = rows(done(repository, "list", "digits"))
    assert " 66.67% - 20" in first
    assert "Z shadow by " in first
    assert second.endswith(" 33.33% 0.25 release -")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["promote", "digits", "3"], "digits: no release '3' is declared; there is 1, 2"),
        (["promote", "nobody", "1"], "has no model 'nobody'"),
        (["traffic", "digits", "1=90", "2"], "'2' is not RELEASE=WEIGHT, e.g. 1=90"),
        (["traffic", "digits", "1=much"], "'1=much' is not RELEASE=WEIGHT"),
        (["traffic", "digits", "1=1", "1=2"], "listed twice"),
        (["traffic", "digits", "1=-1"], "cannot have the weight -1"),
        (["traffic", "digits", "1=0"], "no release would have a positive weight"),
        (["shadow", "digits", "2", "--share", "0"], "above 0 and at most 1"),
        (["rollback", "digits"], "nothing to roll back to"),
        (["list", "nobody"], "no releases.toml for nobody"),
        (["list", "--url", "http://127.0.0.1:9"], "http://127.0.0.1:9/models does not answer"),
        (["list", "--url", "file:///etc/passwd"], "not an http:// or https:// address"),
    ],
)
def test_what_cannot_be_done_is_told(repository: Path, arguments: list[str], told: str) -> None:
    before = (repository / "digits" / FILE).read_text()
    result = run(repository, *arguments)
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert told in result.output
    assert (repository / "digits" / FILE).read_text() == before


def test_a_broken_manifest_is_told_with_its_line(repository: Path) -> None:
    with (repository / "digits" / FILE).open("a") as file:
        file.write("later = 1\n")
    for arguments in (["list"], ["promote", "digits", "1"]):
        result = run(repository, *arguments)
        assert result.exit_code == 1
        assert f"digits/{FILE}:11: traffic.later: no such release is declared" in result.output


def test_the_repository_comes_from_the_settings(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_REPOSITORY", str(repository))
    command = [GATEWAY, "release", "promote", "digits", "2", "--no-wait"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout == "digits: traffic 1=0, 2=100; shadow none: declared\n"
    assert read_one(repository / "digits" / FILE).traffic["2"] == 100


def test_list_with_the_state_in_a_gateway(stack: Stack) -> None:
    result = CliRunner().invoke(main, ["release", "list", "--url", stack.url])
    header, *lines = rows(result.output)
    assert header.endswith(" last change applied state")
    assert len(lines) >= 5
    assert all(line.endswith(" ready") for line in lines)


def test_what_is_no_gateway_is_told(repository: Path, stack: Stack) -> None:
    result = run(repository, "list", "--url", f"{stack.url}/metrics")
    assert result.exit_code == 1
    assert "/metrics/models answers 404 Not Found" in result.output
    unserved = rows(done(repository, "list", "digits", "--url", f"{stack.url}/"))
    assert unserved[2].endswith(" not served")
