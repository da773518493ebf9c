"""Packing: rows of like length share a call, none starves, padding is exact and bounded."""

from __future__ import annotations

import random

import numpy as np
import pytest
from gateway_preprocessor import TensorSpec

from gateway.serving.packing import Bounds, bucket, choose, length_of, not_finite, stack

OVERHEAD = 24


def test_buckets_are_shared_steps() -> None:
    lengths = range(1, 4097)
    buckets = [bucket(length) for length in lengths]
    assert all(b >= n for b, n in zip(buckets, lengths, strict=True))
    assert buckets == sorted(buckets)
    assert max(b / n for b, n in zip(buckets, lengths, strict=True) if n >= 16) <= 1 + 1 / 16
    assert len(set(buckets)) <= 16 * 8
    assert all(bucket(b) == b for b in buckets)


def cost(lengths: list[int]) -> int:
    """What a call costs that has rows of these lengths, in tokens."""
    return OVERHEAD + len(lengths) * bucket(max(1, *lengths))


def least_cost(lengths: list[int], bounds: Bounds) -> int:
    """What the cheapest calls cost together that neighbours in length can share."""
    ordered = sorted(lengths)
    found = [0]
    for end in range(1, len(ordered) + 1):
        calls = [ordered[start:end] for start in range(end)]
        allowed = [
            found[end - len(call)] + cost(call)
            for call in calls
            if len(call) == 1
            or (len(call) <= bounds.rows and cost(call) - OVERHEAD <= bounds.tokens)
        ]
        found.append(min(allowed))
    return found[-1]


@pytest.mark.parametrize("seed", range(50))
def test_the_first_always_goes_and_all_calls_cost_least_together(seed: int) -> None:
    rng = random.Random(seed)
    waiting = [rng.randint(0, 256) for _ in range(rng.randint(1, 40))]
    bounds = Bounds(rng.randint(1, 12), rng.choice([64, 512, 4096]))
    least, spent = least_cost(waiting, bounds), 0
    while waiting:
        chosen = choose(waiting, bounds, OVERHEAD)
        assert 0 in chosen
        assert len(set(chosen)) == len(chosen) <= bounds.rows
        call = [waiting[position] for position in chosen]
        assert cost(call) - OVERHEAD <= bounds.tokens or len(call) == 1
        spent += cost(call)
        waiting = [size for position, size in enumerate(waiting) if position not in chosen]
    assert least <= spent <= 1.03 * least  # a cut within a bucket is not looked for


def test_nothing_varies_everything_fits() -> None:
    assert sorted(choose([0] * 20, Bounds(16, 4096), OVERHEAD)) == list(range(16))


def test_like_lengths_are_preferred() -> None:
    lengths = [20, 200, 21, 180, 19, 22]
    assert sorted(choose(lengths, Bounds(4, 4096), OVERHEAD)) == [0, 2, 4, 5]


def test_a_call_is_worth_more_company_the_more_it_costs() -> None:
    lengths = [8, 12, 20, 40]
    sizes = [len(choose(lengths, Bounds(4, 4096), overhead)) for overhead in (1, 24, 256)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1] == 4


def test_stack_pads_each_spec_with_its_own_value() -> None:
    specs = (
        TensorSpec("ids", "int64", (-1,), pad=9),
        TensorSpec("grid", "float32", (2, -1), pad=-1),
        TensorSpec("flat", "int8", (3,)),
    )
    rows = [
        {
            "ids": np.arange(n, dtype=np.int64),
            "grid": np.full((2, n), n, np.float32),
            "flat": np.full(3, n, np.int8),
        }
        for n in (3, 11)
    ]
    assert [length_of(specs, row) for row in rows] == [3, 11]
    tensors, elements, padding = stack(specs, rows)
    assert tensors["ids"].tolist() == [[0, 1, 2] + [9] * 9, [*range(11)] + [9]]
    assert tensors["grid"].shape == (2, 2, 12)
    assert tensors["grid"][0, 1].tolist() == [3.0] * 3 + [-1.0] * 9
    assert tensors["flat"].tolist() == [[3] * 3, [11] * 3]
    assert (elements, padding) == (24 + 48, 24 + 48 - (3 + 11 + 6 + 22))
    assert {name: array.dtype.name for name, array in tensors.items()} == {
        "ids": "int64",
        "grid": "float32",
        "flat": "int8",
    }


def test_rows_that_are_not_finite_are_found() -> None:
    scores = np.ones((5, 2, 3), np.float32)
    scores[1, 0, 2], scores[3, 1, 1] = np.nan, -np.inf
    half = np.array([1, 2, 3, 4, np.inf], np.float16)
    labels = np.arange(5)
    assert not_finite({"labels": labels}) == {}
    assert not_finite({"scores": scores, "labels": labels}) == {1: "scores", 3: "scores"}
    assert not_finite({"scores": scores, "half": half}) == {1: "scores", 3: "scores", 4: "half"}


@pytest.mark.parametrize("shape", [(2,), (-1,)])
def test_foreign_byte_order_is_turned_around(shape: tuple[int, ...]) -> None:
    spec = TensorSpec("x", "float32", shape)
    stacked = stack([spec], [{"x": np.array([1, 2], ">f4")}, {"x": np.array([3, 4], "<f4")}])
    assert stacked.tensors["x"].dtype.isnative
    assert stacked.tensors["x"].tolist() == [[1, 2], [3, 4]]
