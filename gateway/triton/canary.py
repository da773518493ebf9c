"""The canary: a model with a known answer that every embedded Triton must give before it serves.

It detects an environment without ONNX Runtime, a numpy with which Triton answers empty tensors, a
backends folder that does not fit, and another server on our port.
"""

import asyncio
import contextlib
import json
from typing import Any

import numpy as np
from tritonclient import grpc as messages
from tritonclient.grpc import aio as triton_grpc

from gateway.triton.launcher import EmbeddedOptions
from gateway.triton.layout import EmbeddedTritonError

NAME = "gateway_canary"
CONFIG = {
    "platform": "onnxruntime_onnx",
    "max_batch_size": 4,
    "instance_group": [{"kind": "KIND_CPU", "count": 1}],
}
POLL_S = 0.05


async def ask(options: EmbeddedOptions, endpoint: str) -> None:
    """Load, ask and unload the canary; raises EmbeddedTritonError unless the answer is right.

    The model is sent with the load call, so that the user's repository is not touched.
    """
    model = await asyncio.to_thread((options.canary / NAME / "1/model.onnx").read_bytes)
    quick = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 200)]
    async with triton_grpc.InferenceServerClient(endpoint, channel_args=quick) as client:
        await _until_live(client, options.identity)
        try:
            await client.load_model(
                NAME, config=json.dumps(CONFIG), files={"file:1/model.onnx": model}
            )
            rows = np.array([[1, 2, 3], [-4, 5, 0.5]], np.float32)
            tensor = messages.InferInput("x", list(rows.shape), "FP32")
            tensor.set_data_from_numpy(rows)
            answer = await client.infer(NAME, [tensor], model_version="1")
            _compare(answer, {"scaled": 2 * rows + 1, "row_sum": rows.sum(1, keepdims=True)})
            await client.unload_model(NAME)
        except messages.service_pb2_grpc.grpc.RpcError as error:
            raise EmbeddedTritonError(f"the canary failed: {error}") from error
        except messages.InferenceServerException as error:
            raise EmbeddedTritonError(f"the canary failed: {error.message()}") from error


async def _until_live(client: Any, identity: str) -> None:
    while True:
        with contextlib.suppress(messages.InferenceServerException):
            if await client.is_server_ready(client_timeout=1.0):
                break
        await asyncio.sleep(POLL_S)
    name = (await client.get_server_metadata()).name
    if name != identity:
        raise EmbeddedTritonError(f"another server ('{name}') listens on the port given for gRPC")


def _compare(answer: Any, expected: dict[str, np.ndarray[Any, Any]]) -> None:
    for name, want in expected.items():
        try:
            got = answer.as_numpy(name)
        except ValueError as error:  # fewer bytes than the shape needs
            got = str(error)
        if not np.array_equal(got, want):
            raise EmbeddedTritonError(
                f"the canary's output {name} should be {want.tolist()}, but is {got}: check numpy "
                "(below 2.5) and onnxruntime in the models' environment"
            )
