"""Inference calls: numpy arrays in and out, over tritonclient's generated stubs.

Only the stubs, since a call through tritonclient's own client costs a quarter more (`make
bench-micro` measures both) for features that the gateway does not use.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

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
from gateway.triton.channel import Server
from gateway.triton.health import Health
from gateway.triton.model_control import ModelVersion

log = structlog.get_logger(__name__)


class Mismatch(ValueError):
    """An answer that does not fit its request; the message is for the log."""


class Liveness(StrEnum):
    """Whether a server answers."""

    ALIVE = "alive"
    REFUSED = "refused"  # no connection, or an error for an answer
    SILENT = "silent"  # no answer in time: it hangs, or packets get lost


class Proof(NamedTuple):
    """What a probe found; the reason is for operators, empty if alive."""

    liveness: Liveness
    reason: str = ""


class Started(NamedTuple):
    """A call in progress: when it began, its bytes, and how many had been answered by then."""

    version: ModelVersion
    at: float
    size: int
    answers: int


class Inference:
    """Sends calls to one server, over a channel of its own.

    `answers` counts the calls that were answered; `health` judges each version by its calls.
    """

    def __init__(self, server: Server) -> None:
        self.answers = 0
        self.health = Health()
        self._server = server
        self._endpoint = server.endpoint
        self._calls: dict[grpc.aio.Call, Started] = {}
        self._connect()

    @property
    def in_flight(self) -> int:
        """The number of calls in progress."""
        return len(self._calls)

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
        call = self._infer(request, timeout=deadline.left)
        size = sum(map(len, request.raw_input_contents))
        started = Started(version, time.monotonic(), size, self.health.answered[version])
        self._calls[call] = started
        try:
            answer = await call
            found = _outputs(request, answer, outputs)
        except grpc.aio.AioRpcError as error:
            reason = error.details()
            log.warning("inference failed", model=model, replica=self._endpoint, reason=reason)
            told = errors.translated(error.code())
            if isinstance(told, InferenceFailed) and told.repeatable:
                self.health.failed(version)
            raise told from None
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) and task.cancelling():
                raise
            raise errors.translated(grpc.StatusCode.CANCELLED) from None  # by `reconnect`
        except ValueError as error:  # Mismatch, or bytes that do not fit the shape
            reason = str(error)
            log.error("wrong answer", model=model, replica=self._endpoint, reason=reason)  # noqa: TRY400
            raise InferenceFailed("Triton's answer does not fit the request.") from None
        finally:
            del self._calls[call]
        self.answers += 1
        self.health.answered[version] += 1
        longest, largest = self.health.slowest.get(version, (0.0, 0))
        seconds = time.monotonic() - started.at
        if seconds > longest or size > largest:
            self.health.slowest[version] = max(seconds, longest), max(size, largest)
        if record := self.health.records.get(version):
            record.calls += 1
        return found

    async def probe(self, seconds: float) -> Proof:
        """Ask the server, over the channel of the calls, whether it lives. Does not raise.

        Not by HTTP/2 pings: a server whose operator has not allowed frequent ones closes the
        connection on them.
        """
        try:
            answer = await self._live(service_pb2.ServerLiveRequest(), timeout=seconds)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return Proof(Liveness.SILENT, f"no answer in {seconds} s")
            return Proof(Liveness.REFUSED, error.details() or error.code().name)
        if not answer.live:
            return Proof(Liveness.REFUSED, "it says that it is not live")
        return Proof(Liveness.ALIVE)

    def give_up_stuck(self) -> None:
        """Fail the calls that hang with TritonUnreachable: they can be made again."""
        now = time.monotonic()
        for call, (version, at, size, answers) in list(self._calls.items()):
            if self.health.stuck(version, now - at, size, answers):
                call.cancel()

    async def reconnect(self) -> None:
        """Fail all calls in progress with TritonUnreachable, and connect anew."""
        old, calls = self._channel, list(self._calls)
        self._connect()
        for call in calls:
            call.cancel()
        await old.close()

    def _connect(self) -> None:
        self._channel = self._server.channel()
        stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._infer, self._live = stub.ModelInfer, stub.ServerLive

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
