"""`gateway tune --plan`: threads over all models, and LibTorch's one setting."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from loadtests.tuning.plan import Share, fitted
from tests.support.repository import copied


def tune(repository: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["tune", "--repository", str(repository), *options])


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return copied(tmp_path, ["digits", "langid", "minilm", "minilm_torchscript"])


def test_shares_are_cut_until_they_fit() -> None:
    shares = {"a": Share(4, 2), "b": Share(1, 4), "c": Share(1, 1)}
    assert fitted(shares, 16) == shares
    assert fitted(shares, 8) == {"a": Share(4, 1), "b": Share(1, 3), "c": Share(1, 1)}
    assert fitted(shares, 2) == dict.fromkeys(shares, Share(1, 1))


def test_the_plan_names_who_asks_for_how_much(repository: Path) -> None:
    shown = tune(repository, "--plan", "--cores", "2")
    assert shown.exit_code == 0, shown.output
    assert "all models busy at the same moment ask for 5 of 2 cores" in shown.output
    assert "Even at 1 × 1 they ask for 4 cores" in shown.output
    (line,) = (line for line in shown.output.splitlines() if line.startswith("minilm "))
    assert line.endswith("→ 1 × 1")
    shown = tune(repository, "--plan", "--cores", "2", "--busy", "minilm")
    assert "ask for 2 of 2 cores.\nThe cores suffice." in shown.output
    shown = tune(repository, "--plan", "--busy", "minilm,nobody")
    assert shown.exit_code == 1
    assert "no model nobody" in shown.output


def test_torch_models_that_disagree_fail_the_plan_and_the_tuning(repository: Path) -> None:
    path = repository / "langid/config.pbtxt"
    path.write_text(path.read_text().replace('string_value: "1"', 'string_value: "2"'))
    shown = tune(repository, "--plan")
    assert shown.exit_code == 1
    assert str(path) in shown.output
    assert str(repository / "minilm_torchscript/config.pbtxt") in shown.output
    shown = tune(repository, "minilm_torchscript", "--threads", "1", "--cores", "2")
    assert shown.exit_code == 1
    assert "INTRA_OP_THREAD_COUNT holds for the whole Triton process" in shown.output


def test_wrong_use_is_told(repository: Path) -> None:
    assert tune(repository).exit_code == 2
    assert tune(repository, "digits", "--plan").exit_code == 2
    assert tune(repository, "digits", "--rows", "0,4").exit_code == 2
    shown = tune(repository, "digits", "--release", "9")
    assert (shown.exit_code, "no release '9' is declared" in shown.output) == (1, True)
    (repository / "digits/releases.lock").unlink()
    assert "is not locked: `gateway lock digits` first" in tune(repository, "digits").output
