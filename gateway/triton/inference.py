"""Inference calls: numpy arrays in and out, over tritonclient's generated stubs.

Only the stubs, since a call through tritonclient's own client costs a quarter more (`make
bench-micro` measures both) for features that the gateway does not use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import numpy as np
import structlog
from gateway_preprocessor import TensorSpec
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import np_to_triton_dtype, triton_to_np_dtype

from gateway.deadline import Deadline
from gateway.errors import InferenceFailed
from gateway.triton import errors
from gateway.triton.health import Health
from gateway.triton.model_control import ModelVersion

log = structlog.get_logger(__name__)


class Mismatch(ValueError):
    """An answer that does not fit its request; the message is for the log."""


class Inference:
    """Sends calls to one server, over a channel of its own.

    `in_flight` counts the calls in progress; `health` judges each version by its calls.
    """

    def __init__(self, endpoint: str, options: Sequence[tuple[str, int]]) -> None:
        self.in_flight = 0
        self.health = Health()
        self._endpoint = endpoint
        self._channel = grpc.aio.insecure_channel(endpoint, options)
        self._call = service_pb2_grpc.GRPCInferenceServiceStub(self._channel).ModelInfer

    async def infer(
        self,
        version: ModelVersion,
        tensors: Mapping[str, NDArray[Any]],
        outputs: Sequence[TensorSpec],
        deadline: Deadline,
    ) -> dict[str, NDArray[Any]]:
        """Run one call of stacked rows, (rows, …) each; return each output as (rows, …).

        Raises GatewayError, translated by `triton/errors.py`.
        """
        model, number = version
        request = service_pb2.ModelInferRequest(
            model_name=model,
            model_version=str(number),
            inputs=[
                {"name": name, "datatype": np_to_triton_dtype(array.dtype), "shape": array.shape}
                for name, array in tensors.items()
            ],
            outputs=[{"name": spec.name} for spec in outputs],
            raw_input_contents=[array.tobytes() for array in tensors.values()],
        )
        self.in_flight += 1
        try:
            answer = await self._call(request, timeout=deadline.left)
            found = _outputs(request, answer, outputs)
        except grpc.aio.AioRpcError as error:
            reason = error.details()
            log.warning("inference failed", model=model, replica=self._endpoint, reason=reason)
            told = errors.translated(error.code())
            if isinstance(told, InferenceFailed) and told.repeatable:
                self.health.failed(version)
            raise told from None
        except ValueError as error:  # Mismatch, or bytes that do not fit the shape
            reason = str(error)
            log.error("wrong answer", model=model, replica=self._endpoint, reason=reason)  # noqa: TRY400
            raise InferenceFailed("Triton's answer does not fit the request.") from None
        finally:
            self.in_flight -= 1
        if record := self.health.records.get(version):
            record.calls += 1
        return found

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()


def _outputs(request: Any, answer: Any, outputs: Sequence[TensorSpec]) -> dict[str, NDArray[Any]]:
    """Read an answer's arrays. Raises Mismatch, ValueError."""
    if answer.model_version != request.model_version:
        raise Mismatch(
            f"version {answer.model_version} answered instead of {request.model_version}"
        )
    rows = request.inputs[0].shape[0]
    found = {
        output.name: np.frombuffer(raw, triton_to_np_dtype(output.datatype)).reshape(
            tuple(output.shape)
        )
        for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
    }
    for spec in outputs:
        if (got := found.get(spec.name)) is None or got.shape[:1] != (rows,):
            raise Mismatch(f"output {spec.name!r} is missing or does not have {rows} rows")
    return found
