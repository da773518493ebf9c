"""How numbers become bytes: which channels are wide, what scales they get, what is left over.

All of it is element by element, and sums go row after row, so every CPU gets the same bytes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

#: A channel stays float32 if its range is more than this many times the median channel's.
LONE = 5.0
#: Room around the observed ranges: values outside are cut, which costs more than resolution.
MARGIN = 1.05
#: CPUs without VNNI add the products of two neighbours in 16 bits, so 255 times the sum of two
#: neighbouring weights must fit.
PAIR = 128


class Seen(NamedTuple):
    """What calibration saw of an activation, by channel: lowest, highest and mean value."""

    low: Floats
    high: Floats
    mean: Floats

    @property
    def reach(self) -> Floats:
        """The largest distance of each channel from 0."""
        return np.maximum(-self.low, self.high)

    def moved(self, centre: Floats, by: Floats) -> Seen:
        """Return it for the channels less `centre` and divided by `by`."""
        return Seen(*((values - centre) / by for values in self))

    def only(self, chosen: Mask) -> Seen:
        """Return it for some of the channels."""
        return Seen(*(values[chosen] for values in self))

    def step(self) -> tuple[np.float32, np.uint8]:
        """Return what one of 255 steps stands for, and which of them is 0."""
        low = min(float(self.low.min()) * MARGIN, 0.0)
        high = max(float(self.high.max()) * MARGIN, 0.0)
        step = np.float32((high - low) / 255)
        return step, np.uint8(np.rint(-low / step))


def columns(matrix: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Round a float (inputs, outputs) matrix to bytes; returns them and each column's scale."""
    pairs = np.abs(matrix[0::2] + matrix[1::2]).max(0)
    scales = np.maximum(np.abs(matrix).max(0) / 127, pairs / PAIR)
    while True:
        rounded = np.rint(matrix / scales).astype(np.int8)
        over = np.abs(rounded[0::2].astype(np.int16) + rounded[1::2]).max(0) > PAIR
        if not over.any():
            return rounded, scales
        scales[over] *= np.float32(1.001)


def factors(reach: Floats, wide: float) -> Floats:
    """Return what to divide each channel by, so that no range is wider than `wide` medians."""
    return np.maximum(reach / (np.float32(wide) * np.median(reach)), 1)


def lone(reach: Floats) -> NDArray[np.bool_]:
    """Tell the channels that reach much farther than the others."""
    return reach > LONE * np.median(reach)


def weighted(weights: Floats, matrix: Floats) -> Floats:
    """Multiply a row vector by a matrix, in an order that no CPU changes."""
    return sum(weights.astype(np.float64)[:, None] * matrix).astype(np.float32)
