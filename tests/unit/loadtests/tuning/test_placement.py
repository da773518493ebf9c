"""`config.pbtxt` is edited as text: comments stay, and the result means what was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.triton import placement
from gateway.triton.configs import ConfigError, parse
from gateway.triton.placement import FILE, ONNX, Placed, Placement
from tests.support.stack import ROOT

MODELS = sorted((ROOT / "model_repository").glob(f"*/{FILE}"))
HEAD = 'name: "m"\nbackend: "onnxruntime"\nmax_batch_size: 8\n'


def placed(folder: Path, text: str) -> Placed:
    (folder / FILE).write_text(HEAD + text)
    return placement.read(folder)


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.parent.name)
def test_every_model_of_the_repository(path: Path) -> None:
    found = placement.read(path.parent)
    text = placement.written(found, Placement(3, 5, 250), "other")
    config = parse(path, text)
    assert config.name == "other"
    assert [group.count for group in config.instance_group] == [3]
    assert config.parameters[placement.THREADS[found.backend]].string_value == "5"
    assert "INTER_OP_THREAD_COUNT" not in config.parameters
    assert config.dynamic_batching.max_queue_delay_microseconds == 250
    before, after = found.text.splitlines(), text.splitlines()
    assert len(before) == len(after)
    changed = [old for old, new in zip(before, after, strict=True) if old != new]
    assert len(changed) == 4
    assert not any(line.startswith("#") for line in changed)
    assert placement.written(found, found.placement) == found.text


def test_missing_keys_are_added(tmp_path: Path) -> None:
    found = placed(tmp_path, "# nothing here\n")
    assert (found.backend, found.placement) == (ONNX, Placement(1, None, 0))
    text = placement.written(found, Placement(2, 1, 100))
    assert text.startswith(HEAD + "# nothing here\n")
    again = placed(tmp_path, text.removeprefix(HEAD))
    assert again.placement == Placement(2, 1, 100)
    found = placed(tmp_path, "dynamic_batching { }\ninstance_group { kind: KIND_CPU }\n")
    assert placed(tmp_path, placement.written(found, Placement(2, 1, 9)).removeprefix(HEAD))
    assert placement.read(tmp_path).placement == Placement(2, 1, 9)


def test_comments_and_strings_do_not_mislead(tmp_path: Path) -> None:
    tail = (
        "# instance_group [ { count: 9 } ]\n"
        'parameters { key: "note" value { string_value: "# count: 7" } }\n'
        "instance_group [ { # kind: KIND_GPU\n  kind: KIND_CPU count: 1 } ] # count: 4\n"
        "parameters { key: \"intra_op_thread_count\" value: { string_value: '2' } }\n"
    )
    found = placed(tmp_path, tail)
    assert found.placement == Placement(1, 2, 0)
    wanted = tail.replace("count: 1 }", "count: 2 }").replace("'2'", '"4"')
    assert placement.written(found, Placement(2, 4, 0)) == HEAD + wanted


def test_forms_that_cannot_be_edited_are_refused(tmp_path: Path) -> None:
    several = "instance_group [ { count: 1 kind: KIND_CPU }, { count: 2 kind: KIND_CPU } ]\n"
    found = placed(tmp_path, several)
    assert found.placement.instances == 3
    with pytest.raises(ConfigError, match="by hand"):
        placement.written(found, Placement(2, None, 0))
    with pytest.raises(ConfigError, match="instead of a number"):
        placed(
            tmp_path,
            'parameters { key: "intra_op_thread_count" value { string_value: "two" } }\n',
        )
    (tmp_path / FILE).unlink()
    with pytest.raises(ConfigError, match=FILE):
        placement.read(tmp_path)
