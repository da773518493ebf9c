"""Explains how a golden case differs: where, both values, and by how much at most.

Whether it differs is decided by the contract's comparison, which preprocessors' own tests use too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from gateway_preprocessor.goldens import Golden, difference, tensor_difference
from numpy.typing import NDArray


class _Number(NamedTuple):
    """A number at a place, as expected and as it is."""

    place: str
    expected: Any
    actual: Any
    distance: float

    def __str__(self) -> str:
        return f"{self.place}: {self.actual!s} instead of {self.expected!s}"


def of_tensors(golden: Golden, tensors: Mapping[str, NDArray[Any]]) -> str | None:
    """Say how tensors differ from those of a golden case; None if they agree."""
    if (told := tensor_difference(golden, tensors)) is None:
        return None
    for name, tensor in golden.tensors.items():
        actual, expected = tensors.get(name), tensor.array()
        if actual is None or actual.dtype != expected.dtype or actual.shape != expected.shape:
            return told
        tolerance = golden.tensor_tolerance if expected.dtype.kind == "f" else 0.0
        distances = _distances(expected, actual)
        if (farther := np.argwhere(distances > tolerance)).size:
            most = np.unravel_index(distances.argmax(), distances.shape)
            first, farthest = (
                _Number(f"{name}{list(map(int, at))}", expected[at], actual[at], distances[at])
                for at in (tuple(farther[0]), most)
            )
            return f"{first} (± {tolerance}){_largest(len(farther), farthest)}"
    return told


def of_result(expected: Any, actual: Any, tolerance: float) -> str | None:
    """Say how a result differs from the expected one; None if it agrees."""
    if (told := difference(expected, actual, tolerance)) is None:
        return None
    farther = [number for number in _numbers(expected, actual, "$") if number.distance > tolerance]
    if not farther:
        return told
    return told + _largest(len(farther), max(farther, key=lambda number: number.distance))


def _distances(expected: NDArray[Any], actual: NDArray[Any]) -> NDArray[np.float64]:
    """Return how far the elements are apart: 0 where both are NaN, infinite where one is."""
    left, right = expected.astype(np.float64), actual.astype(np.float64)
    with np.errstate(invalid="ignore"):
        found = np.abs(left - right)
    found[(left == right) | (np.isnan(left) & np.isnan(right))] = 0.0
    return np.nan_to_num(found, nan=np.inf, posinf=np.inf)


def _largest(count: int, farthest: _Number) -> str:
    """Describe the farthest of the numbers that differ too much."""
    if count == 1:
        return f", off by {farthest.distance:.3g}"
    return f"; {count} numbers differ, by up to {farthest.distance:.3g} ({farthest})"


def _numbers(expected: Any, actual: Any, place: str) -> Iterator[_Number]:
    """Yield the numbers that stand at the same place in both JSON values."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        for name in expected.keys() & actual.keys():
            yield from _numbers(expected[name], actual[name], f"{place}.{name}")
    elif isinstance(expected, list) and isinstance(actual, list):
        for index, pair in enumerate(zip(expected, actual, strict=False)):
            yield from _numbers(*pair, f"{place}[{index}]")
    elif all(type(value) in (int, float) for value in (expected, actual)):
        yield _Number(place, expected, actual, abs(actual - expected))
