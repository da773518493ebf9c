"""Answers that do not fit their request, from a server that a real Triton cannot be made to be."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from gateway_preprocessor import TensorSpec
from structlog.testing import capture_logs
from tritonclient.grpc import service_pb2, service_pb2_grpc

from gateway.deadline import Deadline
from gateway.errors import InferenceFailed
from gateway.triton.channel import Server
from gateway.triton.inference import Inference

OUTPUTS = (TensorSpec("scores", "float32", (3,)),)
TENSORS = {"ids": np.arange(8, dtype=np.int64).reshape(2, 4), "on": np.array([[True], [False]])}
SCORES = np.arange(6, dtype=np.float32).reshape(2, 3)


class Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers with the scores, spoilt; keeps the request."""

    def __init__(self, spoil: Callable[[Any], None]) -> None:
        self._spoil = spoil
        self.request: Any = None

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802 - the stub's name
        self.request = request
        answer = service_pb2.ModelInferResponse(
            model_name=request.model_name,
            model_version=request.model_version,
            outputs=[{"name": "scores", "datatype": "FP32", "shape": SCORES.shape}],
            raw_output_contents=[SCORES.tobytes()],
        )
        self._spoil(answer)
        return answer


@asynccontextmanager
async def served(spoil: Callable[[Any], None]) -> AsyncIterator[tuple[Inference, Servicer]]:
    server, servicer = grpc.aio.server(), Servicer(spoil)
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    inference = Inference(Server(f"127.0.0.1:{port}"))
    try:
        yield inference, servicer
    finally:
        await inference.close()
        await server.stop(None)


async def test_arrays_go_out_and_come_back() -> None:
    async with served(lambda answer: None) as (inference, servicer):
        found = await inference.infer(("model", 3), TENSORS, OUTPUTS, Deadline.after(10))
    np.testing.assert_array_equal(found["scores"], SCORES)
    request = servicer.request
    assert (request.model_name, request.model_version) == ("model", "3")
    assert [(t.name, t.datatype, list(t.shape)) for t in request.inputs] == [
        ("ids", "INT64", [2, 4]),
        ("on", "BOOL", [2, 1]),
    ]
    assert list(request.raw_input_contents) == [array.tobytes() for array in TENSORS.values()]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda answer: setattr(answer, "model_version", "4"), "version 4 answered instead of 3"),
        (lambda answer: setattr(answer.outputs[0], "name", "other"), "'scores' is missing"),
        (
            lambda answer: answer.outputs[0].shape.__setitem__(slice(None), [3, 2]),
            "does not have 2 rows",
        ),
    ],
)
async def test_an_answer_that_does_not_fit_is_refused(
    spoil: Callable[[Any], None], reason: str
) -> None:
    async with served(spoil) as (inference, _):
        with capture_logs() as logged, pytest.raises(InferenceFailed, match="does not fit"):
            await inference.infer(("model", 3), TENSORS, OUTPUTS, Deadline.after(10))
    assert reason in logged[0]["reason"]
