"""Second half of preprocessing: shades of grey → the data set's grid.

`load_digits` was made from 32 x 32 bitmaps of the upright digit, scaled to the full height and
centred: each of 8 x 8 blocks counts its inked pixels, 0 to 16. The same is done here for any
image: find the ink, lay an 8 x 8 grid over it, take the mean ink of each cell.
"""

from __future__ import annotations

import numpy as np
from gateway_preprocessor import InvalidInput
from numpy.typing import NDArray

from digits_preprocessor.decode import MIN_CONTRAST, MIN_SIDE, PATH

GRID = 8
FULL = 16
#: Share of the strongest ink from which a pixel belongs to the digit: above what JPEG adds
#: around edges, below the outermost grey pixels of the data set's own images.
THRESHOLD = 0.25


def normalise(shades: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the digit in `shades` (height, width) as ink (8, 8): 0 for none to 16 for full.

    Raises InvalidInput where there is no digit to be seen.
    """
    ink = _ink(shades)
    marked = ink >= THRESHOLD * ink.max()
    top, bottom = _extent(marked.any(axis=1))
    left, right = _extent(marked.any(axis=0))
    side = max(bottom - top, right - left)
    if side < MIN_SIDE:
        raise InvalidInput(PATH, f"shows no digit: the only mark is {side} pixels large")
    rows = _cells(len(ink), (top + bottom - side) / 2, side)
    columns = _cells(ink.shape[1], (left + right - side) / 2, side)
    cells = rows @ ink @ columns.T
    return np.asarray(cells * (FULL / cells.max()), np.float32)


def _ink(shades: NDArray[np.float32]) -> NDArray[np.float32]:
    """Distance from the background, which is what most of the border shows: light or dark."""
    darkest, lightest = shades.min(), shades.max()
    if lightest - darkest < MIN_CONTRAST:
        raise InvalidInput(PATH, "shows no digit: it has the same shade everywhere")
    background = np.median(
        np.concatenate([shades[0], shades[-1], shades[1:-1, 0], shades[1:-1, -1]])
    )
    dark_on_light = background - darkest > lightest - background
    ink = background - shades if dark_on_light else shades - background
    return np.asarray(np.maximum(ink, 0), np.float32)


def _extent(marked: NDArray[np.bool_]) -> tuple[int, int]:
    """First index that is set, and the one after the last."""
    indices = np.flatnonzero(marked)
    return int(indices[0]), int(indices[-1]) + 1


def _cells(length: int, start: float, side: int) -> NDArray[np.float32]:
    """Weights (8, length) that average `length` pixels into 8 cells covering `side` from `start`.

    Exact area averaging: a pixel counts in a cell by the share of the cell that it covers.
    Cells beyond the image see nothing there.
    """
    edges = start + np.arange(GRID + 1) * (side / GRID)
    pixels = np.arange(length)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.asarray(np.maximum(covered, 0) / (side / GRID), np.float32)
