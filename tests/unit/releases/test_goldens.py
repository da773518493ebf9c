"""`goldens.json` of a model version: its results take the place of the wheel's, or nothing does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gateway_preprocessor.goldens import Golden

from gateway.releases import goldens
from gateway.releases.alignment import Misaligned

CASES = [
    Golden(name, "by hand", input=name, tensors={}, output={"score": 0.5}, output_tolerance=1e-5)
    for name in ("one", "two", "three")
]
RIGHT = [{"name": case.name, "output": {"score": 0.25}} for case in CASES]


def write(folder: Path, content: Any) -> Path:
    """Give version 2 this file; returns the model's folder."""
    path = folder / "text/2/goldens.json"
    path.parent.mkdir(parents=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(json.dumps(content))
    return folder / "text"


def test_a_version_without_a_file_has_the_results_of_the_cases(tmp_path: Path) -> None:
    assert goldens.of_version(write(tmp_path, RIGHT), 1, CASES) == CASES


def test_a_file_replaces_results_and_nothing_else(tmp_path: Path) -> None:
    shuffled = [RIGHT[2], RIGHT[0] | {"output_tolerance": 0.1}, RIGHT[1]]
    found = goldens.of_version(write(tmp_path, shuffled), 2, CASES)
    assert [golden.output for golden in found] == [{"score": 0.25}] * 3
    assert [golden.output_tolerance for golden in found] == [0.1, 1e-5, 1e-5]
    assert [golden.name for golden in found] == [golden.name for golden in CASES]
    assert [golden.payload for golden in found] == [golden.payload for golden in CASES]


WRONG: dict[str, tuple[Any, str]] = {
    "a case is missing": (RIGHT[:2], "golden case 'three' is missing"),
    "none is there": (
        [],
        "golden case 'one' is missing; golden case 'two' is missing; golden case 'three' is",
    ),
    "a case of another preprocessor": (
        [*RIGHT, {"name": "four", "output": 1}],
        "the preprocessor has no golden case 'four'",
    ),
    "a case twice": ([*RIGHT, RIGHT[0]], "golden case 'one' appears 2 times"),
    "no result": (
        [RIGHT[0], {"name": "two"}],
        "Object missing required field `output` - at `$[1]`",
    ),
    "a misspelt key": (
        [RIGHT[0] | {"tolerance": 1}],
        "Object contains unknown field `tolerance` - at `$[0]`",
    ),
    "a tolerance below 0": (
        [RIGHT[0] | {"output_tolerance": -1}],
        "Expected `float` >= 0.0 - at `$[0].output_tolerance`",
    ),
    "no list": ({"one": 1}, "Expected `array`, got `object`"),
    "half a file": (b'[{"name": "o', "Input data was truncated"),
    "an empty file": (b"", "Input data was truncated"),
    "no UTF-8": (b'[{"name": "\xff"}]', "'utf-8' codec can't decode byte 0xff"),
    "nested 10,000 deep": (b"[" * 10_000, "Expected `object`, got `array` - at `$[0]`"),
}


@pytest.mark.parametrize(("content", "reason"), WRONG.values(), ids=WRONG)
def test_what_does_not_fit_is_named(tmp_path: Path, content: Any, reason: str) -> None:
    with pytest.raises(Misaligned) as error:
        goldens.of_version(write(tmp_path, content), 2, CASES)
    assert str(error.value).startswith(f"text/2/goldens.json: {reason}")


def test_a_folder_of_that_name_is_told(tmp_path: Path) -> None:
    (tmp_path / "text/2/goldens.json").mkdir(parents=True)
    with pytest.raises(Misaligned, match=r"text/2/goldens\.json: .*Is a directory"):
        goldens.of_version(tmp_path / "text", 2, CASES)
