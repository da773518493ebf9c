"""What is measured: nothing beyond the cores, nothing that LibTorch's one setting forbids."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from loadtests.tuning import placement, ranking
from loadtests.tuning.candidates import Candidate, Grid, TuningError, choose
from loadtests.tuning.load import Window
from loadtests.tuning.placement import Placed
from tests.support.stack import ROOT

MODELS = ROOT / "model_repository"
NOW = Candidate(1, 1, 16, 0)
ALL = Grid(None, None, (4, 8), (0,))


def torch(folder: Path, name: str, threads: int) -> Placed:
    """A TorchScript model's configuration with so many threads."""
    (folder / name).mkdir()
    text = (MODELS / "langid/config.pbtxt").read_text().replace('"langid"', f'"{name}"')
    text = text.replace('string_value: "1"', f'string_value: "{threads}"')
    (folder / name / placement.FILE).write_text(text)
    return placement.read(folder / name)


def pairs(found: list[Candidate]) -> set[tuple[int, int]]:
    return {(candidate.instances, candidate.threads) for candidate in found}


def test_no_more_threads_than_cores() -> None:
    found = choose(placement.read(MODELS / "minilm"), NOW, [], ALL, 2)
    assert found.measured[0] == NOW
    assert pairs(found.measured) == {(1, 1), (1, 2), (2, 1)}
    assert len(found.measured) == 7
    assert found.skipped == ["2 × 2: 4 threads would share 2 cores"]


def test_many_cores_are_searched_coarsely_unless_told() -> None:
    minilm = placement.read(MODELS / "minilm")
    found = choose(minilm, NOW, [], ALL, 8)
    assert pairs(found.measured) == {(1, 1), (1, 8), (2, 4), (4, 2), (8, 1)}
    assert "2 × 2: takes some of the cores only (--cores)" in found.skipped
    found = choose(minilm, NOW, [], ALL._replace(instances=(2, 3)), 8)
    assert pairs(found.measured) == {(1, 1), (2, 1), (2, 2), (2, 4), (3, 1), (3, 2)}


def test_what_cannot_be_served_is_skipped_with_the_reason() -> None:
    minilm = placement.read(MODELS / "minilm")
    found = choose(minilm, Candidate(4, 2, 16, 0), [], ALL._replace(rows=(32, 64)), 2)
    assert {candidate.rows for candidate in found.measured} == {32}
    assert "64 rows: above max_batch_size (32)" in found.skipped
    assert found.skipped[0].startswith("the present 4 × 2, 16 rows, 0 µs: 8 threads")
    with pytest.raises(TuningError, match="no candidate is left"):
        choose(minilm, Candidate(4, 2, 16, 0), [], ALL._replace(rows=(64,)), 2)


def test_torch_threads_follow_the_other_torch_models(tmp_path: Path) -> None:
    mine, other = torch(tmp_path, "mine", 1), torch(tmp_path, "other", 1)
    found = choose(mine, NOW, [other, placement.read(MODELS / "minilm")], ALL, 2)
    assert pairs(found.measured) == {(1, 1), (2, 1)}
    (told,) = (line for line in found.skipped if line.startswith("2 threads"))
    assert str(mine.path) in told
    assert str(other.path) in told
    with pytest.raises(TuningError, match=r"mine/config.pbtxt cannot have 2 while .*other/config"):
        choose(mine, NOW, [other], ALL._replace(threads=(1, 2)), 2)
    alone = choose(mine, NOW, [placement.read(MODELS / "minilm")], ALL, 2)
    assert (1, 2) in pairs(alone.measured)


def test_models_that_are_not_tuned(tmp_path: Path) -> None:
    folder = shutil.copytree(MODELS / "tumor", tmp_path / "tumor")
    path = folder / placement.FILE
    text = path.read_text()
    for old, new, reason in (
        ("KIND_CPU", "KIND_GPU", "on GPUs"),
        ('platform: "onnxruntime_onnx"', 'backend: "python"', "only ONNX and TorchScript"),
        ("max_batch_size: 256", "max_batch_size: 0", "max_batch_size ≥ 1"),
    ):
        path.write_text(text.replace(old, new))
        with pytest.raises(TuningError, match=reason):
            choose(placement.read(folder), NOW, [], ALL, 2)


def windows(rate: float, p99: float) -> list[Window]:
    return [Window(rate, p99 / 2, p99, 1, 0)] * 2


def test_the_best_keeps_the_slo_and_takes_no_more_than_it_needs() -> None:
    one, two, three = Candidate(1, 1, 8, 0), Candidate(2, 1, 8, 0), Candidate(1, 2, 8, 0)
    results = {one: windows(98, 20), two: windows(100, 20), three: windows(150, 60)}
    assert ranking.best(results, NOW, 50) == one
    assert ranking.best(results, NOW, 60) == three
    wide = Candidate(1, 1, 16, 0)
    equal = results | {wide: windows(99, 20)}
    assert ranking.best(equal, NOW, 50) == wide == NOW
    assert ranking.best(equal, two, 50) == one
    assert ranking.best(results | {one: windows(96, 20)}, NOW, 50) == two
    assert ranking.best(results | {two: windows(100, 19)}, NOW, 10) == two


def test_only_the_hopeless_drop_out() -> None:
    one, two, three = Candidate(1, 1, 4, 0), Candidate(1, 1, 8, 0), Candidate(2, 1, 8, 0)
    spoilt = [Window(20, 5, 300, 1, 0), Window(95, 5, 20, 1, 0)]
    results = {one: windows(100, 20), two: windows(60, 30), three: spoilt}
    assert ranking.promising(results, NOW, 50) == [one, three]
    lines = ranking.table(results | {one: windows(100, 20) * 2}, two, 25)
    assert lines[1].endswith("BEST")
    assert lines[2].endswith("as it is now, misses the SLO, dropped after 2 rounds")
