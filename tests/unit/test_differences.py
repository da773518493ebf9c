"""Differences from golden cases: the place, both values, the largest distance, the tolerance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gateway_preprocessor.goldens import Golden, Tensor

from gateway import differences


def golden(array: Any, tolerance: float = 0.0) -> Golden:
    tensors = {"x": Tensor.of(np.array(array))}
    return Golden("a", "by hand", "text", tensors, None, tensor_tolerance=tolerance)


def float32(values: Any) -> Any:
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("expected", "tolerance", "actual", "told"),
    [
        (np.array([1, 2]), 0.0, np.array([1, 2]), None),
        (float32([0.1]), 0.01, float32([0.105]), None),
        (np.array([1, 2]), 0.5, np.array([1, 3]), "x[1]: 3 instead of 2 (± 0.0), off by 1"),
        (
            float32([[0.1, 0.2], [0.3, 0.4]]),
            0.01,
            float32([[0.1, 0.25], [0.3, 0.6]]),
            (
                "x[0, 1]: 0.25 instead of 0.2 (± 0.01);"
                " 2 numbers differ, by up to 0.2 (x[1, 1]: 0.6 instead of 0.4)"
            ),
        ),
        (
            float32([np.nan, 1, 2]),
            0.1,
            float32([np.nan, np.nan, 2]),
            "x[1]: nan instead of 1.0 (± 0.1), off by inf",
        ),
        (np.array([True]), 0.0, np.array([False]), "x[0]: False instead of True (± 0.0), off by 1"),
        (np.array([1]), 0.0, float32([1]), "x: float32[1] instead of int64[1]"),
    ],
)
def test_tensors(expected: Any, tolerance: float, actual: Any, told: str | None) -> None:
    assert differences.of_tensors(golden(expected, tolerance), {"x": actual}) == told


def test_a_missing_tensor() -> None:
    told = differences.of_tensors(golden([1]), {"y": np.array([1])})
    assert told == "tensors ['y'] instead of ['x']"


@pytest.mark.parametrize(
    ("expected", "actual", "told"),
    [
        ({"a": [1.0]}, {"a": [1.05]}, None),
        ({"a": [1.0]}, {"a": [1.5]}, "$.a[0]: 1.5 instead of 1.0 (± 0.1), off by 0.5"),
        (
            {"a": [1.0, 2.0, 3.0]},
            {"a": [1.5, 2.0, 5.0]},
            (
                "$.a[0]: 1.5 instead of 1.0 (± 0.1);"
                " 2 numbers differ, by up to 2 ($.a[2]: 5.0 instead of 3.0)"
            ),
        ),
        ({"a": "yes"}, {"a": "no"}, "$.a: 'no' instead of 'yes'"),
        ({"a": "yes", "b": 1}, {"a": "no", "b": 2}, "$.a: 'no' instead of 'yes', off by 1"),
        ([1, 2], [1], "$: 1 items instead of 2"),
    ],
)
def test_results(expected: Any, actual: Any, told: str | None) -> None:
    assert differences.of_result(expected, actual, 0.1) == told
