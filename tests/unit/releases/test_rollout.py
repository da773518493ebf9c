"""Edits of `releases.toml`: what they write, what they refuse, and many editors at once."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import re
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from gateway.releases import rollout
from gateway.releases.history import HISTORY, KEPT
from gateway.releases.history import read as history
from gateway.releases.manifest import FILE, ManifestError, Shadow, read_one
from gateway.releases.rollout import RolloutError
from gateway.system import files
from tests.unit.releases.edited import TEXT, names, split

EDITOR = """
import sys
from pathlib import Path
from gateway.releases import rollout
folder, number, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
for turn in range(1, count + 1):
    rollout.traffic(folder, {"1": number * 1000 + turn}, f"editor {number}")
"""


def test_an_edit_keeps_comments_and_form(folder: Path) -> None:
    edited = rollout.traffic(folder, {"1": 90, "2.0": 10}, "me")
    assert edited == read_one(folder / FILE)
    assert (folder / FILE).read_text() == TEXT.replace(
        "1 = 100     # since spring\n", '1 = 90     # since spring\n"2.0" = 10\n'
    )
    rollout.promote(folder, "2.0", "me")
    assert (folder / FILE).read_text() == TEXT.replace(
        "1 = 100     # since spring\n", '1 = 0     # since spring\n"2.0" = 100\n'
    )


@pytest.mark.parametrize(
    ("written", "after"),
    [
        ("traffic = { 1 = 100 }  # split\n", 'traffic = { 1 = 0 , "2.0" = 100 }  # split\n'),
        ("traffic.1 = 100 # split\n", 'traffic.1 = 0 # split\ntraffic."2.0" = 100\n'),
        ("traffic.1 = 100\ntraffic.'2.0' = 1", "traffic.1 = 0\ntraffic.'2.0' = 100"),
    ],
)
def test_other_forms_of_the_table(folder: Path, written: str, after: str) -> None:
    releases = TEXT[: TEXT.index("[traffic]")]
    (folder / FILE).write_text(written + releases)
    rollout.promote(folder, "2.0", "me")
    assert split(folder) == {"2.0": 100}
    assert re.sub(r"\s", "", (folder / FILE).read_text()) == re.sub(r"\s", "", after + releases)


def test_line_ends_and_mode_are_kept(folder: Path) -> None:
    (folder / FILE).write_bytes(TEXT.replace("\n", "\r\n").encode())
    (folder / FILE).chmod(0o640)
    rollout.traffic(folder, {"1": 90}, "me")
    assert (folder / FILE).read_bytes() == TEXT.replace("100", "90").replace("\n", "\r\n").encode()
    assert (folder / FILE).stat().st_mode & 0o777 == 0o640
    assert names(folder) == [HISTORY, FILE]


def test_a_link_stays_a_link(folder: Path, tmp_path: Path) -> None:
    (folder / FILE).rename(tmp_path / "real.toml")
    (folder / FILE).symlink_to(tmp_path / "real.toml")
    rollout.promote(folder, "2.0", "me")
    assert (folder / FILE).is_symlink()
    assert split(folder) == {"2.0": 100}
    assert len(history(folder)) == 1


def test_shadow(folder: Path) -> None:
    made = rollout.shadow(folder, "2.0", "me", 0.25, "preprocessor")
    assert made.shadow == Shadow("2.0", 0.25, "preprocessor")
    shown = '\n[shadow]\nrelease = "2.0"\nshare = 0.25\ncompare = "preprocessor"\n'
    assert (folder / FILE).read_text() == TEXT + shown
    rollout.shadow(folder, "2.0", "me")
    assert read_one(folder / FILE).shadow == Shadow("2.0")
    for _ in range(3):
        assert rollout.shadow(folder, None, "me").shadow is None
        assert (folder / FILE).read_text() == TEXT
        rollout.shadow(folder, "1", "me")
    rollout.promote(folder, "2.0", "me")
    rollout.rollback(folder, "me")
    assert read_one(folder / FILE).shadow == Shadow("1")


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ({"3": 1}, "no release '3' is declared; there is 1, 2.0"),
        ({"1": 5, "2.0": -5}, "release '2.0' cannot have the weight -5"),
        ({"1": 1_000_001}, "weights are from 0 to 1000000"),
        ({"1": 0}, "no release would have a positive weight"),
        ({}, "no release would have a positive weight"),
    ],
)
def test_traffic_refuses(folder: Path, weights: dict[str, int], told: str) -> None:
    with pytest.raises(RolloutError, match=re.escape(told)):
        rollout.traffic(folder, weights, "me")
    assert (folder / FILE).read_text() == TEXT
    assert names(folder) == [FILE]


def test_others_refuse(folder: Path) -> None:
    for refused in (
        lambda: rollout.promote(folder, "3", "me"),
        lambda: rollout.shadow(folder, "3", "me"),
    ):
        with pytest.raises(RolloutError, match="no release '3' is declared"):
            refused()
    for share in (0.0, -1.0, 1.1, float("nan")):
        with pytest.raises(RolloutError, match="above 0 and at most 1"):
            rollout.shadow(folder, "1", "me", share)
    with pytest.raises(RolloutError, match="no model 'other'"):
        rollout.promote(folder.parent / "other", "1", "me")
    assert (folder / FILE).read_text() == TEXT


def test_a_broken_file_is_not_edited(folder: Path) -> None:
    (folder / FILE).write_text(TEXT + "later = 1\n")
    with pytest.raises(RolloutError, match=r"releases\.toml:15: traffic\.later: no such release"):
        rollout.promote(folder, "1", "me")
    (folder / FILE).write_bytes(b"\xff")
    with pytest.raises(RolloutError, match="fix the file first"):
        rollout.promote(folder, "1", "me")


def test_a_read_only_repository_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(files, "_beside", read_only)  # root may write everywhere else
    with pytest.raises(RolloutError, match="Read-only file system; is the repository read-only"):
        rollout.promote(folder, "2.0", "me")
    assert (folder / FILE).read_text() == TEXT


def test_an_editor_that_holds_the_file_for_too_long_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PATIENCE", 0.05)
    with (folder / FILE).open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(RolloutError, match="being edited by another process"):
            rollout.promote(folder, "2.0", "me")


def test_an_edit_by_hand_in_the_same_moment_is_not_overwritten(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = rollout.decode

    def hasty(path: Path, text: str) -> object:
        path.write_text(TEXT + "# by hand\n")
        return decode(path, text)

    monkeypatch.setattr(rollout, "decode", hasty)
    with pytest.raises(RolloutError, match="just been edited manually"):
        rollout.promote(folder, "2.0", "me")
    assert (folder / FILE).read_text() == TEXT + "# by hand\n"
    assert names(folder) == [FILE]


def test_many_editors_lose_no_edit_and_tear_no_file(folder: Path) -> None:
    editors, turns = 4, 24
    assert editors * turns <= KEPT
    running = [
        subprocess.Popen([sys.executable, "-c", EDITOR, folder, str(number), str(turns)])
        for number in range(1, editors + 1)
    ]
    seen = set()
    while any(editor.poll() is None for editor in running):
        seen.add(read_one(folder / FILE).traffic["1"])  # whole at any time
        history(folder)
        time.sleep(0.002)
    assert [editor.wait() for editor in running] == [0] * editors
    changes = history(folder)
    for number in range(1, editors + 1):
        own = [change.after["1"] for change in changes if change.who == f"editor {number}"]
        assert own == [number * 1000 + turn for turn in range(1, turns + 1)]
    assert changes[0].before == {"1": 100}
    for before, after in pairwise(changes):
        assert after.before == before.after
    assert changes[-1].after == read_one(folder / FILE).traffic
    assert len(seen) > editors
    assert names(folder) == [HISTORY, FILE]


def test_a_killed_editor_leaves_a_whole_file_and_no_lock(folder: Path) -> None:
    chance = random.Random(3)
    for number in range(1, 6):
        command = [sys.executable, "-c", EDITOR, folder, str(number), "900"]
        editor = subprocess.Popen(command)
        while not any(change.who == f"editor {number}" for change in history(folder)):
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.02))
        editor.kill()
        editor.wait()
        try:
            weights = read_one(folder / FILE).traffic
        except ManifestError as error:
            raise AssertionError("torn") from error
        assert weights["1"] // 1000 == number
    rollout.promote(folder, "2.0", "me")
    assert split(folder) == {"2.0": 100}
