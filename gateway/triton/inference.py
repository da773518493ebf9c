"""One inference call: numpy arrays in and out, over the generated stubs of tritonclient.

The stubs alone, as a call by tritonclient's own client costs a quarter more (`make bench-micro`
measures both); what it adds, the gateway does not use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import numpy as np
from gateway_preprocessor import TensorSpec
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import np_to_triton_dtype, triton_to_np_dtype

from gateway.triton.control import Version


class Mismatch(ValueError):
    """An answer that does not fit its request; the message is for the log."""


class Inference:
    """Sends calls over a channel of its own."""

    def __init__(self, endpoint: str, options: Sequence[tuple[str, int]]) -> None:
        self._channel = grpc.aio.insecure_channel(endpoint, options)
        self._call = service_pb2_grpc.GRPCInferenceServiceStub(self._channel).ModelInfer

    async def infer(
        self,
        version: Version,
        tensors: Mapping[str, NDArray[Any]],
        outputs: Sequence[TensorSpec],
        timeout: float,  # noqa: ASYNC109 - gRPC enforces it
    ) -> dict[str, NDArray[Any]]:
        """Run one call of stacked rows, (rows, …) each; `timeout` is in seconds.

        Raises grpc.aio.AioRpcError, Mismatch.
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
        answer = await self._call(request, timeout=timeout)
        if answer.model_version != str(number):
            raise Mismatch(f"version {answer.model_version} answered instead of {number}")
        rows = request.inputs[0].shape[0]
        found = {
            output.name: np.frombuffer(raw, triton_to_np_dtype(output.datatype)).reshape(
                tuple(output.shape)
            )
            for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
        }
        for spec in outputs:
            if (got := found.get(spec.name)) is None or got.shape[:1] != (rows,):
                raise Mismatch(f"output {spec.name!r} is missing or has not {rows} rows")
        return found

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()
