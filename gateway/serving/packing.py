"""Chooses which waiting rows share a call to Triton, and stacks them.

Triton merges only calls of equal shape, and padding is wasted work: rows of nearly equal
length share a call, padded to the next bucket, which all gateways have in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from gateway_preprocessor import TensorSpec
from numpy.typing import NDArray

#: Rows that are looked at for one call; older ones stand first, so that none starves.
WINDOW = 32
#: Padded tokens may exceed the real ones by this share.
MAX_PADDING = 0.25
Tensors = dict[str, NDArray[Any]]


class Sized(Protocol):
    """What packing needs to know of a row."""

    @property
    def length(self) -> int:
        """Tokens: the row's size along its varying dimension (0: nothing varies)."""


class Stacked(NamedTuple):
    """One call's tensors, (rows, …), and the share of their elements that is padding."""

    tensors: Tensors
    padding: float


def bucket(length: int) -> int:
    """Round up to a shared length: steps of 8 up to 64, then four steps an octave."""
    if length <= 64:  # noqa: PLR2004 - the end of the fine steps
        return max(8, -(-length // 8) * 8)
    step = 1 << (length - 1).bit_length() - 3
    return -(-length // step) * step


def choose(waiting: Sequence[Sized], max_rows: int) -> list[int]:
    """Pick the positions of the rows for the next call: the oldest, and its nearest in length.

    `waiting` is ordered by age and not empty.
    """
    oldest = waiting[0].length
    nearest = sorted(
        range(1, min(len(waiting), WINDOW)), key=lambda index: abs(waiting[index].length - oldest)
    )
    chosen, longest, real = [0], bucket(oldest), max(oldest, 1)
    for index in nearest:
        if len(chosen) == max_rows:
            break
        length = waiting[index].length
        padded = max(longest, bucket(length)) * (len(chosen) + 1)
        # Rows of one bucket always fit together: they would be padded so anyway.
        if bucket(length) != longest and padded > (1 + MAX_PADDING) * (real + length):
            continue
        chosen.append(index)
        longest, real = max(longest, bucket(length)), real + length
    return chosen


def length_of(specs: Sequence[TensorSpec], tensors: Tensors) -> int:
    """Return the largest size along any varying dimension; 0 where nothing varies."""
    sizes = (
        got
        for spec in specs
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
            stacked[index][tuple(slice(size) for size in array.shape)] = array
            real += array.size
        total += stacked.size
        tensors[spec.name] = stacked
    return Stacked(tensors, 1 - real / total if total else 0.0)
