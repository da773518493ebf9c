"""Packing: rows of like length share a call, none starves, padding is exact and bounded."""

from __future__ import annotations

import random
from typing import NamedTuple

import numpy as np
import pytest
from gateway_preprocessor import TensorSpec

from gateway.serving.packing import MAX_PADDING, WINDOW, bucket, choose, length_of, stack


class Waiting(NamedTuple):
    length: int


def test_buckets_are_shared_steps() -> None:
    lengths = range(1, 4097)
    buckets = [bucket(length) for length in lengths]
    assert all(b >= n for b, n in zip(buckets, lengths, strict=True))
    assert buckets == sorted(buckets)
    assert max(b / n for b, n in zip(buckets, lengths, strict=True) if n >= 32) <= 1.25
    assert len(set(buckets)) < 40
    assert all(bucket(b) == b for b in buckets)


@pytest.mark.parametrize("seed", range(50))
def test_the_oldest_always_goes_and_padding_is_bounded(seed: int) -> None:
    rng = random.Random(seed)
    waiting = [Waiting(rng.randint(0, 256)) for _ in range(rng.randint(1, 100))]
    chosen = choose(waiting, 8)
    assert chosen[0] == 0
    assert len(set(chosen)) == len(chosen) <= 8
    assert max(chosen) < WINDOW
    lengths = [waiting[index].length for index in chosen]
    if len({bucket(length) for length in lengths}) > 1:
        assert max(map(bucket, lengths)) * len(lengths) <= (1 + MAX_PADDING) * max(sum(lengths), 1)


def test_nothing_varies_everything_fits() -> None:
    assert choose([Waiting(0)] * 20, 16) == list(range(16))


def test_like_lengths_are_preferred() -> None:
    waiting = [Waiting(n) for n in (20, 200, 21, 180, 19, 22)]
    assert sorted(choose(waiting, 4)) == [0, 2, 4, 5]


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
    tensors, padding = stack(specs, rows)
    assert tensors["ids"].tolist() == [[0, 1, 2] + [9] * 13, [*range(11)] + [9] * 5]
    assert tensors["grid"].shape == (2, 2, 16)
    assert tensors["grid"][0, 1].tolist() == [3.0] * 3 + [-1.0] * 13
    assert tensors["flat"].tolist() == [[3] * 3, [11] * 3]
    assert padding == pytest.approx(1 - (3 + 11 + 6 + 22) / (32 + 64))
    assert {name: array.dtype.name for name, array in tensors.items()} == {
        "ids": "int64",
        "grid": "float32",
        "flat": "int8",
    }
