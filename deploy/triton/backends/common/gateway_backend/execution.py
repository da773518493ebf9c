"""One `execute()` call: the requests become one batch, the batch's outputs become responses.

Tensors pass as DLPack in both directions. That copies nothing, and it is right with every numpy.
Triton's own ways are not, since its stub was built for numpy 1: with numpy 2 `as_numpy` repeats the
first element over the whole tensor, and from 2.5 on `Tensor(name, array)` is empty, all silently.

Triton checks a request's inputs, but takes whatever a Python-based backend answers: outputs of the
wrong dtype or shape would pass silently. So they are checked here, against the configuration.
"""

import ctypes
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from gateway_backend.config import ModelConfig, Tensor

_set_capsule_name = ctypes.pythonapi.PyCapsule_SetName
_set_capsule_name.argtypes = (ctypes.py_object, ctypes.c_char_p)
_USED = b"used_dltensor"  # module level: a capsule keeps the pointer, not the text


class OutputError(ValueError):
    """The model's answer does not fit its configuration."""


#: How far instances on the CPU stand back behind the processes that feed them.
NICE = 5


def give_way(config: ModelConfig) -> None:
    """Let the servers run first where cores are short: they need little, and instances wait for it.

    Near saturation this halved p99 (docs/performance.md). An instance on a GPU needs its moments
    of CPU as soon as the servers do. Threads inherit it: to be called before there are any.
    """
    if config.kind != "GPU":
        os.nice(NICE)


class BatchedModel:
    """Base of the backends: `initialize` sets `config`, `infer` runs one batch.

    Inputs are numpy arrays in the host's memory, unless a backend overrides `read` and `join`.
    """

    config: ModelConfig

    def read(self, tensor: Any, spec: Tensor) -> Any:
        """Wrap one request's input, without a copy."""
        return _read(tensor, spec)

    def join(self, parts: Sequence[Any]) -> Any:
        """Make one batch of what several requests brought for an input."""
        return np.concatenate(parts)

    def infer(self, feeds: dict[str, Any], outputs: Sequence[str]) -> Mapping[str, NDArray[Any]]:
        """Run the model once on inputs by name; `outputs` are the names wanted."""
        raise NotImplementedError

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer each request; a failure becomes an error response, never an exception."""
        if self.config.max_batch_size > 0:
            return self._execute_batch(requests)
        return [response for request in requests for response in self._execute_batch([request])]

    def _execute_batch(self, requests: Sequence[Any]) -> list[Any]:
        responses: dict[int, Any] = {}
        inputs: dict[int, list[Any]] = {}
        for index, request in enumerate(requests):
            try:
                inputs[index] = [
                    self.read(_input(request, spec), spec) for spec in self.config.inputs
                ]
            except Exception as error:  # noqa: BLE001 - this request's own fault, not its batch's
                responses[index] = _failure(error, pb_utils.TritonError.INVALID_ARG)
        if inputs:
            try:
                answers = self._infer_rows(list(inputs.values()), [requests[i] for i in inputs])
                responses.update(zip(inputs, answers, strict=True))
            except OutputError as error:
                responses |= _failures(inputs, error, pb_utils.TritonError.INVALID_ARG)
            except Exception as error:  # noqa: BLE001 - a bad batch must not end the process
                responses |= _failures(inputs, error, pb_utils.TritonError.INTERNAL)
        return [responses[index] for index in range(len(requests))]

    def _infer_rows(self, inputs: Sequence[Sequence[Any]], requests: Sequence[Any]) -> list[Any]:
        columns = zip(*inputs, strict=True)
        feeds = {
            tensor.name: column[0] if len(column) == 1 else self.join(column)
            for tensor, column in zip(self.config.inputs, columns, strict=True)
        }
        wanted = [set(request.requested_output_names()) for request in requests]
        specs = [spec for spec in self.config.outputs if any(spec.name in w for w in wanted)]
        batched = self.config.max_batch_size > 0
        rows = [len(arrays[0]) for arrays in inputs] if batched else []
        answers = self.infer(feeds, [spec.name for spec in specs])
        arrays = {
            spec.name: _check(spec, answers[spec.name], sum(rows) if batched else None)
            for spec in specs
        }
        ends = np.cumsum(rows).tolist() if batched else [None]
        starts = [0, *ends[:-1]] if batched else [None]
        return [
            pb_utils.InferenceResponse(
                [
                    _to_triton(name, array[start:end] if len(requests) > 1 else array)
                    for name, array in arrays.items()
                    if name in names
                ]
            )
            for names, start, end in zip(wanted, starts, ends, strict=True)
        ]


class _Exporter:
    """Hands numpy the capsule at once; numpy's own negotiation costs a raised TypeError each."""

    __slots__ = ("_tensor",)

    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor

    def __dlpack__(self, **_: Any) -> Any:
        return self._tensor.to_dlpack()

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)  # the CPU


def _input(request: Any, spec: Tensor) -> Any:
    tensor = pb_utils.get_input_tensor_by_name(request, spec.name)
    if tensor is None:
        raise ValueError(f"input '{spec.name}' is missing")
    return tensor


def _read(tensor: Any, spec: Tensor) -> NDArray[Any]:
    if not tensor.is_cpu():  # only where FORCE_CPU_ONLY_INPUT_TENSORS is "no"
        raise ValueError(f"input '{spec.name}' lies in a GPU's memory, which this backend cannot")
    if spec.data_type == "TYPE_STRING":  # no DLPack for text
        text: NDArray[Any] = np.array(
            [item.decode() for item in tensor.as_numpy().flat], dtype=np.object_
        )
        return text.reshape(tensor.shape())
    return np.from_dlpack(_Exporter(tensor))


def _check(spec: Tensor, array: NDArray[Any], rows: int | None) -> NDArray[Any]:
    if array.dtype != spec.dtype:
        raise OutputError(
            f"configuration expects datatype {spec.data_type} for output '{spec.name}', "
            f"model provides {array.dtype}"
        )
    expected = spec.dims if rows is None else (rows, *spec.dims)
    fits = len(expected) == array.ndim and all(
        want in (-1, got) for want, got in zip(expected, array.shape, strict=True)
    )
    if not fits:
        raise OutputError(
            f"configuration expects shape {list(expected)} for output '{spec.name}', "
            f"model provides {list(array.shape)}"
        )
    return np.ascontiguousarray(array).reshape(array.shape)


def _to_triton(name: str, array: NDArray[Any]) -> Any:
    if array.dtype == np.object_ or array.size == 0:
        # Text has no DLPack, and Triton takes an empty DLPack tensor for a strided one.
        return pb_utils.Tensor(name, array)
    capsule = (array if array.flags.writeable else array.copy()).__dlpack__()
    tensor = pb_utils.Tensor.from_dlpack(name, capsule)
    # Triton marks a capsule it took over with a name of its own, which numpy's destructor does not
    # know: it would print an error for each tensor. This is the name that the protocol asks for.
    _set_capsule_name(capsule, _USED)
    return tensor


def _failures(requests: Iterable[int], error: Exception, code: Any) -> dict[int, Any]:
    """Return an error response for each request: one that two share makes Triton crash."""
    return {index: _failure(error, code) for index in requests}


def _failure(error: Exception, code: Any) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), code))
