"""`config.pbtxt`: what it says about the cores, and what would have to change in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.triton.configs import ConfigError, parse
from loadtests.tuning import placement
from loadtests.tuning.placement import FILE, ONNX, THREADS, Placed, Placement
from tests.support.stack import ROOT

MODELS = sorted((ROOT / "model_repository").glob(f"*/{FILE}"))
HEAD = 'name: "m"\nbackend: "onnxruntime"\nmax_batch_size: 8\n'
SEVERAL = "instance_group [ { count: 1 kind: KIND_CPU }, { count: 2 kind: KIND_CPU } ]\n"


def placed(folder: Path, text: str) -> Placed:
    (folder / FILE).write_text(HEAD + text)
    return placement.read(folder)


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.parent.name)
def test_every_model_of_the_repository_can_be_placed_anew(path: Path) -> None:
    found = placement.read(path.parent)
    config = parse(path, placement.configured(found, Placement(3, 5, 250), "other"))
    before = parse(path, path.read_text())
    assert config.name == "other"
    assert [group.count for group in config.instance_group] == [3]
    assert config.parameters[THREADS[found.backend]].string_value == "5"
    assert config.dynamic_batching.max_queue_delay_microseconds == 250
    for field in ("name", "instance_group", "parameters", "dynamic_batching"):
        config.ClearField(field)
        before.ClearField(field)
    assert config == before


def test_a_file_that_says_little(tmp_path: Path) -> None:
    found = placed(tmp_path, "# nothing here\n")
    assert (found.backend, found.placement) == (ONNX, Placement(1, None, 0))
    (tmp_path / FILE).write_text(placement.configured(found, Placement(2, 1, 100), "m"))
    assert placement.read(tmp_path).placement == Placement(2, 1, 100)


def test_only_what_differs_is_to_be_changed(tmp_path: Path) -> None:
    found = placed(tmp_path, "instance_group { kind: KIND_CPU count: 2 }\n")
    assert placement.changes(found, Placement(2, None, 0)) == ""
    wanted = parse(tmp_path, placement.changes(found, Placement(4, 1, 50)))
    assert [(group.kind, group.count) for group in wanted.instance_group] == [
        (found.config.instance_group[0].kind, 4)
    ]
    assert wanted.parameters[THREADS[ONNX]].string_value == "1"
    assert wanted.dynamic_batching.max_queue_delay_microseconds == 50


def test_what_cannot_be_tuned_is_refused(tmp_path: Path) -> None:
    found = placed(tmp_path, SEVERAL)
    assert found.placement.instances == 3
    with pytest.raises(ConfigError, match="2 instance groups are more than"):
        placement.configured(found, Placement(2, None, 0), "m")
    with pytest.raises(ConfigError, match="'two', not a number"):
        placed(
            tmp_path,
            'parameters { key: "intra_op_thread_count" value { string_value: "two" } }\n',
        )
    (tmp_path / FILE).unlink()
    with pytest.raises(ConfigError, match=FILE):
        placement.read(tmp_path)
