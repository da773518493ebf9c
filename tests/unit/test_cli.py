"""The command line finds the commands that other packages add, and survives a bad one."""

from __future__ import annotations

from importlib import metadata
from importlib.metadata import EntryPoint, EntryPoints

import click
import pytest
from click.testing import CliRunner, Result

from gateway import cli

BAD = EntryPoint("bad", "no_such_package.commands:bad", cli.GROUP)


@click.command()
def good() -> None:
    """Say so."""
    click.echo("good")


def gateway(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, arguments)


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    good_point = EntryPoint("good", "tests.unit.test_cli:good", cli.GROUP)
    found = EntryPoints([BAD, good_point])
    monkeypatch.setattr(metadata, "entry_points", lambda group: found)


def test_tune_is_there_where_the_load_tests_are_installed() -> None:
    assert "\n  tune " in gateway("--help").output
    assert "Usage: main tune" in gateway("tune", "--help").output


def test_added_commands_are_listed_and_run(added: None) -> None:
    listed = gateway("--help").output
    assert "\n  good " in listed
    assert "\n  serve " in listed
    assert gateway("good").output == "good\n"


def test_a_command_that_cannot_be_loaded_spoils_no_other(added: None) -> None:
    assert "cannot be loaded from no_such_package" in gateway("--help").output
    told = gateway("bad", "--option", "x")
    assert told.exit_code == 1
    assert "ModuleNotFoundError: No module named 'no_such_package'" in told.output
    assert gateway("release", "--help").exit_code == 0


def test_an_unknown_command_is_refused() -> None:
    assert "No such command 'nothing'" in gateway("nothing").output
