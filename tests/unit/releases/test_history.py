"""The history of changes, and rollbacks through it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.releases import rollout
from gateway.releases.history import HISTORY, KEPT
from gateway.releases.history import read as history
from gateway.releases.manifest import FILE, Shadow
from gateway.releases.rollout import RolloutError
from tests.unit.releases.edited import split


def test_history(folder: Path) -> None:
    rollout.traffic(folder, {"1": 90, "2.0": 10}, "me")
    rollout.shadow(folder, "2.0", "admin")
    rollout.promote(folder, "2.0", "me")
    rollout.promote(folder, "2.0", "me")  # changes nothing
    rollout.rollback(folder, "you")
    changes = history(folder)
    assert [(change.action, change.who) for change in changes] == [
        ("traffic", "me"),
        ("shadow", "admin"),
        ("promote", "me"),
        ("rollback", "you"),
    ]
    assert changes[2].before == changes[3].after == {"1": 90, "2.0": 10}
    assert changes[2].shadow == Shadow("2.0")
    assert [change.time for change in changes] == sorted(change.time for change in changes)
    assert changes[0].time.utcoffset() is not None


def test_the_history_is_bounded_and_bears_foreign_lines(folder: Path) -> None:
    for turn in range(1, KEPT + 6):
        rollout.traffic(folder, {"1": turn}, "me")
    assert [change.after["1"] for change in history(folder)] == list(range(6, KEPT + 6))
    with (folder / HISTORY).open("ab") as file:
        file.write(b"<<<<<<< merged\n")
    assert len(history(folder)) == KEPT
    rollout.rollback(folder, "me")
    assert split(folder) == {"1": KEPT + 4}


def test_rollback_goes_further_back_each_time(folder: Path) -> None:
    states = [split(folder)]
    for weights in ({"1": 90, "2.0": 10}, {"1": 50, "2.0": 50}, {"2.0": 100}):
        rollout.traffic(folder, weights, "me")
        states.append(split(folder))
    rollout.shadow(folder, "1", "me")
    for state in reversed(states[:-1]):
        rollout.rollback(folder, "me")
        assert split(folder) == state
    with pytest.raises(RolloutError, match="nothing to roll back to"):
        rollout.rollback(folder, "me")
    rollout.promote(folder, "2.0", "me")
    rollout.rollback(folder, "me")
    assert split(folder) == states[0]


def test_rollback_undoes_edits_by_hand(folder: Path) -> None:
    def by_hand(weight: int) -> None:
        text = (folder / FILE).read_text()
        (folder / FILE).write_text(re.sub(r"^1 = \d+", f"1 = {weight}", text, flags=re.MULTILINE))

    by_hand(70)
    with pytest.raises(RolloutError, match="nothing to roll back to"):
        rollout.rollback(folder, "me")
    rollout.traffic(folder, {"1": 60}, "me")
    by_hand(50)
    rollout.rollback(folder, "me")
    assert split(folder) == {"1": 60}
    rollout.rollback(folder, "me")
    assert split(folder) == {"1": 70}
    rollout.traffic(folder, {"1": 40}, "me")
    by_hand(30)
    rollout.traffic(folder, {"1": 20}, "me")
    for weight in (30, 40, 70):
        rollout.rollback(folder, "me")
        assert split(folder) == {"1": weight}


def test_rollback_is_never_to_a_release_that_is_gone(folder: Path) -> None:
    rollout.promote(folder, "2.0", "me")
    text = (folder / FILE).read_text()
    gone = text[text.index('[releases."2.0"]') :].replace("1 = 0     # since spring\n", "")
    (folder / FILE).write_text(gone)
    with pytest.raises(RolloutError, match=re.escape("no release '1' is declared; there is 2.0")):
        rollout.rollback(folder, "me")
    assert (folder / FILE).read_text() == gone
