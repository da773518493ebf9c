"""A model's configuration, read as strictly as the C++ backends read it.

A repository that loads in the embedded Triton must load in the official container too, so whatever
those backends refuse at load is refused here, with the words they use where they have some. What
they can do and these backends cannot (sequences, ragged batches) is refused too, never ignored.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

THREADS_VARIABLE = "GATEWAY_TRITON_THREADS"
DTYPES: dict[str, np.dtype[Any]] = {
    "TYPE_BOOL": np.dtype(np.bool_),
    "TYPE_UINT8": np.dtype(np.uint8),
    "TYPE_UINT16": np.dtype(np.uint16),
    "TYPE_UINT32": np.dtype(np.uint32),
    "TYPE_UINT64": np.dtype(np.uint64),
    "TYPE_INT8": np.dtype(np.int8),
    "TYPE_INT16": np.dtype(np.int16),
    "TYPE_INT32": np.dtype(np.int32),
    "TYPE_INT64": np.dtype(np.int64),
    "TYPE_FP16": np.dtype(np.float16),
    "TYPE_FP32": np.dtype(np.float32),
    "TYPE_FP64": np.dtype(np.float64),
    "TYPE_STRING": np.dtype(np.object_),
}
_TRUE, _FALSE = ("true", "1"), ("false", "0")


class ConfigError(ValueError):
    """The configuration and the model do not fit: the load fails with this text."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One configured input or output.

    `dims` are those the graph sees: without the batch dimension, after `reshape`.
    """

    name: str
    data_type: str
    dims: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy dtype; text is an array of objects."""
        return DTYPES[self.data_type]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The parts of a model's configuration that a backend acts on."""

    name: str
    path: Path
    kind: str
    device_id: int
    max_batch_size: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    parameters: Mapping[str, str]
    raw: Mapping[str, Any]

    @classmethod
    def from_args(cls, args: Mapping[str, str], default_filename: str) -> "ModelConfig":
        """Read the arguments of `initialize`; raises ConfigError for what cannot be served."""
        raw = json.loads(args["model_config"])
        name = raw["name"]
        _refuse_unsupported(name, raw)
        folder = Path(args["model_repository"], args["model_version"])
        return cls(
            name=name,
            path=model_file(raw, folder, default_filename),
            kind=args["model_instance_kind"],
            device_id=int(args["model_instance_device_id"]),
            max_batch_size=raw["max_batch_size"],
            inputs=tuple(_tensor(name, "input", entry) for entry in raw["input"]),
            outputs=tuple(_tensor(name, "output", entry) for entry in raw["output"]),
            parameters={
                key: value["string_value"] for key, value in raw.get("parameters", {}).items()
            },
            raw=raw,
        )

    def integer(self, key: str) -> int | None:
        """Parameter `key` as an integer, None when absent; anything else fails the load."""
        text = self.parameters.get(key)
        if text is None:
            return None
        if not re.fullmatch(r"[+-]?\d+", text):
            raise ConfigError(
                f"unable to load model '{self.name}', parameter {key} must be an integer, "
                f"not '{text}'"
            )
        return int(text)

    def boolean(self, key: str, *, default: bool) -> bool:
        """Parameter `key` as a boolean (true, false, 1, 0); anything else fails the load."""
        text = self.parameters.get(key)
        if text is None:
            return default
        if text.lower() not in _TRUE + _FALSE:
            raise ConfigError(
                f"unable to load model '{self.name}', parameter {key} must be true or false, "
                f"not '{text}'"
            )
        return text.lower() in _TRUE

    def threads(self, key: str) -> int:
        """Threads of one inference: parameter `key`, else what the launcher set, else one.

        The frameworks' own default is every core for every model, which makes a handful of models
        fight for the same cores.
        """
        configured = self.integer(key) or 0
        return configured if configured > 0 else int(os.environ.get(THREADS_VARIABLE, "1"))

    def expect_count(self, provided: int) -> None:
        """Refuse a configuration whose inputs are not exactly as many as the model's."""
        if provided != len(self.inputs):
            raise ConfigError(
                f"unable to load model '{self.name}', configuration expects "
                f"{len(self.inputs)} inputs, model provides {provided}"
            )


def model_file(raw: Mapping[str, Any], folder: Path, default_filename: str) -> Path:
    """The model's file in a version's folder: `default_model_filename` or the backend's own."""
    path = folder / (raw.get("default_model_filename") or default_filename)
    path = path / default_filename if path.is_dir() else path
    if not path.is_file():
        raise ConfigError(f"unable to find '{path}' for model instance '{raw['name']}'")
    return path


def _tensor(model: str, role: str, entry: Mapping[str, Any]) -> Tensor:
    name, data_type = entry["name"], entry["data_type"]
    if data_type not in DTYPES:
        raise ConfigError(f"unsupported datatype {data_type} for {role} '{name}' of '{model}'")
    if data_type == "TYPE_STRING" and np.lib.NumpyVersion(np.__version__) >= "2.0.0":
        raise ConfigError(
            f"unable to load model '{model}', {role} '{name}': text needs numpy below 2 in the "
            f"models' environment (it has {np.__version__}), with which Triton's Python stub dies "
            "of any text"
        )
    if entry.get("optional"):
        raise ConfigError(f"unable to load model '{model}', optional input '{name}' is refused")
    if entry.get("allow_ragged_batch"):
        raise ConfigError(f"unable to load model '{model}', ragged input '{name}': pad instead")
    dims = entry["reshape"]["shape"] if entry.get("reshape") else entry["dims"]
    return Tensor(name, data_type, tuple(int(dim) for dim in dims))


def _refuse_unsupported(name: str, raw: Mapping[str, Any]) -> None:
    unsupported = [
        key for key in ("sequence_batching", "batch_input", "batch_output") if raw.get(key)
    ]
    if raw.get("model_transaction_policy", {}).get("decoupled"):
        unsupported.append("decoupled")
    if unsupported:
        raise ConfigError(
            f"unable to load model '{name}', the embedded Triton does not support "
            f"{', '.join(unsupported)}"
        )
