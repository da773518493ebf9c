"""Golden cases: real requests with the tensors and results that an independent reference gave.

They ship inside the preprocessor's package as `goldens.json`, a list of `Golden` objects.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from gateway_preprocessor.preprocessor import Preprocessor
from gateway_preprocessor.runner import Payload

FILE = "goldens.json"


class Tensor(msgspec.Struct, frozen=True):
    """A tensor as JSON: numpy dtype name, shape without the batch dimension, flat values."""

    dtype: str
    shape: list[int]
    data: list[float | int | bool]

    @classmethod
    def of(cls, array: NDArray[Any]) -> Tensor:
        """Write `array` down exactly (a float64 holds every value of the smaller dtypes)."""
        return cls(array.dtype.name, list(array.shape), array.ravel().tolist())

    def array(self) -> NDArray[Any]:
        """Return the tensor as a numpy array."""
        return np.array(self.data, dtype=self.dtype).reshape(self.shape)


class Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One golden case.

    `reference` says what independent computation gave `tensors` and `output`. Absolute
    tolerances: `tensor_tolerance` for float tensors (integers agree exactly),
    `output_tolerance` for numbers in the result. `row` holds the model's raw outputs where
    the reference gives them, so that postprocessing is proven without a model.
    """

    name: str
    reference: str
    input: Any
    tensors: dict[str, Tensor]
    output: Any
    parameters: dict[str, Any] = {}
    row: dict[str, Tensor] | None = None
    tensor_tolerance: float = 0.0
    output_tolerance: float = 0.0

    @property
    def payload(self) -> Payload:
        """The case as a request would bring it."""
        parameters = msgspec.json.encode(self.parameters) if self.parameters else b""
        return Payload(msgspec.json.encode(self.input), parameters=parameters)


def load(preprocessor: type[Preprocessor[Any, Any, Any]]) -> list[Golden]:
    """Read the golden cases shipped beside `preprocessor`'s module.

    Raises FileNotFoundError when the package ships none, msgspec.ValidationError on a bad file.
    """
    module = inspect.getmodule(preprocessor)
    package = module.__spec__.parent if module and module.__spec__ else None
    if not package:
        raise FileNotFoundError(f"{preprocessor.__name__} is not part of a package")
    return msgspec.json.decode((resources.files(package) / FILE).read_bytes(), type=list[Golden])


def save(goldens: Sequence[Golden], folder: Path) -> None:
    """Write `goldens` to `folder`, a case a line block, so that a diff shows which one changed."""
    cases = [json.dumps(msgspec.to_builtins(golden), ensure_ascii=False) for golden in goldens]
    (folder / FILE).write_text("[\n" + ",\n".join(cases) + "\n]\n", encoding="utf-8")


def tensor_difference(golden: Golden, tensors: Mapping[str, NDArray[Any]]) -> str | None:
    """Say how `tensors` differ from the golden ones; None where they agree."""
    if sorted(tensors) != sorted(golden.tensors):
        return f"tensors {sorted(tensors)} instead of {sorted(golden.tensors)}"
    for name, tensor in golden.tensors.items():
        actual, expected = tensors[name], tensor.array()
        if actual.dtype != expected.dtype or actual.shape != expected.shape:
            return (
                f"{name}: {actual.dtype}{list(actual.shape)}"
                f" instead of {expected.dtype}{list(expected.shape)}"
            )
        tolerance = golden.tensor_tolerance if expected.dtype.kind == "f" else 0.0
        if not np.allclose(actual, expected, rtol=0.0, atol=tolerance, equal_nan=True):
            return f"{name}: values differ by more than {tolerance}"
    return None


def difference(expected: Any, actual: Any, tolerance: float, path: str = "$") -> str | None:
    """Compare two JSON values; numbers may differ by `tolerance`. Names the first difference."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        if expected.keys() != actual.keys():
            return f"{path}: fields {sorted(actual)} instead of {sorted(expected)}"
        pairs = [(f"{path}.{name}", expected[name], actual[name]) for name in expected]
    elif isinstance(expected, list) and isinstance(actual, list):
        if len(expected) != len(actual):
            return f"{path}: {len(actual)} items instead of {len(expected)}"
        both = zip(expected, actual, strict=True)
        pairs = [(f"{path}[{index}]", *pair) for index, pair in enumerate(both)]
    elif _number(expected) and _number(actual):
        close = math.isclose(expected, actual, rel_tol=0.0, abs_tol=tolerance)
        return None if close else f"{path}: {actual} instead of {expected} (± {tolerance})"
    else:
        same = type(expected) is type(actual) and expected == actual
        return None if same else f"{path}: {actual!r} instead of {expected!r}"
    found = (difference(want, got, tolerance, where) for where, want, got in pairs)
    return next((text for text in found if text), None)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
