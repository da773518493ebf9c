"""Chooses which waiting rows share a call to Triton, stacks them, and inspects what comes back.

Padding is wasted work, and so is a call with too few rows: rows of similar length share a call, as
many as pays, padded to the next bucket. All gateways use the same buckets, since Triton merges only
calls of equal shape.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from gateway_preprocessor import TensorSpec
from numpy.typing import NDArray

Tensors = dict[str, NDArray[Any]]


class Stacked(NamedTuple):
    """One call's tensors, (rows, …).

    `elements` counts those of varying shape, padding included; `padding` is the padding alone.
    """

    tensors: Tensors
    elements: int
    padding: int


class Bounds(NamedTuple):
    """The most rows and padded tokens of one call."""

    rows: int
    tokens: int


def bucket(length: int) -> int:
    """Round up to a shared length: steps of 2 up to 32, then 16 steps per octave."""
    if length <= 32:  # noqa: PLR2004 - the end of the fine steps
        return max(2, length + length % 2)
    step = 1 << (length - 1).bit_length() - 5
    return -(-length // step) * step


def choose(lengths: Sequence[int], bounds: Bounds, overhead: int) -> list[int]:
    """Pick the positions of the rows for the next call: the first, and those that go with it.

    `lengths` are in tokens, in queue order, not empty. The rows are partitioned into calls of
    neighbours in length that cost least in total: a call costs its padded tokens plus `overhead`
    tokens. The call with the first row goes next; the rest is partitioned again next time, with
    the rows that arrive meanwhile. A single row may exceed the token bound.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    padded = [bucket(max(1, lengths[position])) for position in order]
    # Rows of one bucket stay together: a cut saves padding only between buckets.
    cuts = [0, *(at for at in range(1, len(order)) if padded[at] != padded[at - 1]), len(order)]
    # The cheapest partition of the rows before each cut: its cost, and where its last call begins.
    costs, begins = [0.0], [0]
    for end in cuts[1:]:
        longest = padded[end - 1]
        most = _most(longest, bounds)
        least, best = math.inf, 0
        for index in range(len(costs) - 1, -1, -1):
            rows = end - cuts[index]
            if longest * rows >= least:
                break
            cost = costs[index] + longest * rows + overhead * -(-rows // most)
            if cost < least:
                least, best = cost, index
        costs.append(least)
        begins.append(best)
    first, at = order.index(0), len(cuts) - 1
    while cuts[begins[at]] > first:
        at = begins[at]
    start, end = cuts[begins[at]], cuts[at]
    most = _most(padded[end - 1], bounds)
    start += (first - start) // most * most
    return order[start : min(start + most, end)]


def _most(longest: int, bounds: Bounds) -> int:
    """Return the most rows of that length in one call."""
    return max(1, min(bounds.rows, bounds.tokens // longest))


def length_of(specs: Sequence[TensorSpec], tensors: Tensors) -> int:
    """Return the largest size along any varying dimension; 0 if none varies."""
    longest = 0
    for spec in specs:
        if -1 in spec.shape:
            for want, got in zip(spec.shape, tensors[spec.name].shape, strict=True):
                if want == -1 and got > longest:
                    longest = got
    return longest


def stack(specs: Sequence[TensorSpec], rows: Sequence[Tensors]) -> Stacked:
    """Stack unpadded rows into one tensor per spec, padded to the longest row's bucket."""
    tensors, total, real = {}, 0, 0
    for spec in specs:
        arrays = [row[spec.name] for row in rows]
        if -1 not in spec.shape:
            # A dtype has one name in every byte order; Triton would read it as the native one.
            tensors[spec.name] = np.stack(arrays, dtype=spec.dtype, casting="equiv")
            continue
        sizes = [max(each) for each in zip(*(array.shape for array in arrays), strict=True)]
        shape = [
            bucket(most) if want == -1 else want
            for want, most in zip(spec.shape, sizes, strict=True)
        ]
        stacked = np.full((len(arrays), *shape), spec.pad, spec.dtype)
        for index, array in enumerate(arrays):
            stacked[index][tuple(map(slice, array.shape))] = array
            real += array.size
        total += stacked.size
        tensors[spec.name] = stacked
    return Stacked(tensors, total, total - real)


def not_finite(outputs: Mapping[str, NDArray[Any]]) -> dict[int, str]:
    """Return the rows that hold NaN or infinity, each with the name of one such output."""
    found: dict[int, str] = {}
    for name, array in outputs.items():
        if array.dtype.kind == "f" and not (finite := np.isfinite(array)).all():
            rows = finite.reshape(len(array), -1).all(axis=1)
            found |= dict.fromkeys(np.flatnonzero(~rows).tolist(), name)
    return found
