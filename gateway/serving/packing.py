"""Chooses which waiting rows share a call to Triton, and stacks them.

Padding is wasted work, and so is a call for too few rows: rows of nearly equal length share a
call, as many as pay, padded to the next bucket. The buckets are common to all gateways, since
Triton merges only calls of equal shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from gateway_preprocessor import TensorSpec
from numpy.typing import NDArray

Tensors = dict[str, NDArray[Any]]


class Stacked(NamedTuple):
    """One call's tensors, (rows, …), and the share of their elements that is padding."""

    tensors: Tensors
    padding: float


class Bounds(NamedTuple):
    """The most rows and padded tokens of one call."""

    rows: int
    tokens: int


def bucket(length: int) -> int:
    """Round up to a shared length: steps of 2 up to 32, then sixteen steps an octave."""
    if length <= 32:  # noqa: PLR2004 - the end of the fine steps
        return max(2, length + length % 2)
    step = 1 << (length - 1).bit_length() - 5
    return -(-length // step) * step


def choose(lengths: Sequence[int], bounds: Bounds, overhead: int) -> list[int]:
    """Pick the positions of the rows for the next call: the first, and those that pay beside it.

    `lengths` are in tokens, in the order of turns, not empty. Rows share a call with their
    neighbours in length; of all such runs that hold the first row, and keep to the bounds, that
    one is taken whose tokens cost least: `overhead` is what a call costs beside its tokens, in
    tokens. A row alone may exceed the bound of tokens.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    sizes = [max(1, lengths[position]) for position in order]
    padded = [bucket(size) for size in sizes]
    first = order.index(0)
    best, chosen = 0.0, (first, first + 1)
    for end in range(first + 1, min(len(order), first + bounds.rows) + 1):
        if end < min(len(order), first + bounds.rows) and padded[end] == padded[end - 1]:
            continue  # one row more costs no padding
        longest = padded[end - 1]
        most = min(bounds.rows, bounds.tokens // longest)
        if end - first > most:
            break
        start, real = first, sum(sizes[first:end])
        while start and end - start < most:
            paid = real / (overhead + longest * (end - start))
            if sizes[start - 1] < paid * longest:
                break  # shorter ones would be mostly padding
            start -= 1
            real += sizes[start]
        if (paid := real / (overhead + longest * (end - start))) > best:
            best, chosen = paid, (start, end)
    return order[slice(*chosen)]


def length_of(specs: Sequence[TensorSpec], tensors: Tensors) -> int:
    """Return the largest size along any varying dimension; 0 where nothing varies."""
    sizes = (
        got
        for spec in specs
        if spec.ragged
        for want, got in zip(spec.shape, tensors[spec.name].shape, strict=True)
        if want == -1
    )
    return max(sizes, default=0)


def stack(specs: Sequence[TensorSpec], rows: Sequence[Tensors]) -> Stacked:
    """Stack unpadded rows into one tensor a spec, padded to the bucket of the longest."""
    tensors, total, real = {}, 0, 0
    for spec in specs:
        arrays = [row[spec.name] for row in rows]
        if not spec.ragged:
            tensors[spec.name] = np.stack(arrays)
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
    return Stacked(tensors, 1 - real / total if total else 0.0)
