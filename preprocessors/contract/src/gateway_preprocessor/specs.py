"""Tensor declarations: what a preprocessor sends to the model and expects back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway_preprocessor.errors import ContractViolation

#: numpy dtype names that Triton can carry without conversion.
DTYPES = frozenset(
    [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
    + ["bool", "float16", "float32", "float64"]
)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One named tensor of *one* instance: the batch dimension is not part of `shape`.

    `dtype` is a numpy dtype name; a size of -1 varies between instances. `pad` is the value
    with which the lane fills a varying dimension up to the bucket's length.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    pad: float = 0

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ContractViolation(f"tensor {self.name!r}: unknown dtype {self.dtype!r}")
        try:
            np.full(1, self.pad, self.dtype)
        except (OverflowError, ValueError) as error:
            raise ContractViolation(f"tensor {self.name!r}: pad {self.pad}: {error}") from None
        if any(size == 0 or size < -1 for size in self.shape):
            raise ContractViolation(f"tensor {self.name!r}: bad shape {self.shape}")

    @property
    def ragged(self) -> bool:
        """Whether instances may differ in shape."""
        return -1 in self.shape

    def mismatch(self, array: NDArray[Any]) -> str | None:
        """Say how `array` (one instance, no batch dimension) breaks this spec; None if it fits."""
        if not isinstance(array, np.ndarray):
            return f"{self.name}: expected a numpy array, got {type(array).__name__}"
        if array.dtype.name != self.dtype:
            return f"{self.name}: expected dtype {self.dtype}, got {array.dtype.name}"
        if array.ndim != len(self.shape) or any(
            want not in (-1, got) for want, got in zip(self.shape, array.shape, strict=True)
        ):
            return f"{self.name}: expected shape {list(self.shape)}, got {list(array.shape)}"
        return None
