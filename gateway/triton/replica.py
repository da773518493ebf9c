"""One Triton server, over gRPC: inference, model loading, health."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import structlog
from gateway_preprocessor import TensorSpec
from numpy.typing import NDArray
from tritonclient.grpc import aio as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from gateway.telemetry import metrics
from gateway.triton import errors

log = structlog.get_logger(__name__)

#: A restarted server is found again within a second; gRPC's own default backs off to two minutes.
CHANNEL = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)
#: Seconds for a health or index call, and for loading one model.
PROBE_TIMEOUT = 2.0
LOAD_TIMEOUT = 300.0
#: Seconds before a model that failed to load is tried again.
RELOAD_PAUSE = 10.0
#: Calls that must fail in a row before a model counts as broken.
FAILURES = 3

Version = tuple[str, int]


class Limits(NamedTuple):
    """What Triton's configuration of a model allows: rows per call, and instances that run."""

    max_batch_size: int
    instances: int


class Replica:
    """A Triton server that the gateway sends calls to. `ready` holds what it serves now.

    With `mends`, a model that only fails is unloaded and loaded again: where a Python-based
    backend's process has died, Triton still calls its model ready.
    """

    def __init__(self, endpoint: str, *, mends: bool) -> None:
        self.endpoint = endpoint
        self._mends = mends
        self._failures: Counter[str] = Counter()
        self.ready: dict[Version, Limits] = {}
        self.problems: dict[str, str] = {}
        self.up = False
        self.in_flight = 0
        self._next_load: dict[str, float] = {}
        self._client = triton.InferenceServerClient(endpoint, channel_args=CHANNEL)

    async def infer(
        self,
        version: Version,
        tensors: Mapping[str, NDArray[Any]],
        outputs: Sequence[TensorSpec],
        timeout: float,  # noqa: ASYNC109 - gRPC enforces it
    ) -> dict[str, NDArray[Any]]:
        """Run one call of stacked rows; returns each output as an array (rows, …).

        `timeout` is in seconds. Raises GatewayError, translated by `triton/errors.py`.
        """
        model, number = version
        inputs = [_input(name, array) for name, array in tensors.items()]
        wanted = [triton.InferRequestedOutput(spec.name) for spec in outputs]
        self.in_flight += 1
        try:
            result = await self._client.infer(
                model, inputs, str(number), outputs=wanted, client_timeout=timeout
            )
        except InferenceServerException as error:
            reason = error.message()
            log.warning("inference failed", model=model, replica=self.endpoint, reason=reason)
            self._failures[model] += 1
            raise errors.translated(error) from None
        finally:
            self.in_flight -= 1
        self._failures.pop(model, None)
        return {spec.name: result.as_numpy(spec.name) for spec in outputs}

    async def refresh(self, wanted: Sequence[Version]) -> None:
        """Find out what this server serves; load what is wanted and not there.

        Never raises: what is wrong is left in `up` and `problems` (by model).
        """
        try:
            index = await self._client.get_model_repository_index(
                as_json=True, client_timeout=PROBE_TIMEOUT
            )
        except InferenceServerException as error:
            self.mark_down(error.message() or "no answer")
            return
        serving = {
            (entry["name"], int(entry["version"]))
            for entry in index.get("models", ())
            if entry.get("state") == "READY" and entry.get("version", "").isdigit()
        }
        if not self.up:
            self.up = True
            metrics.REPLICA_UP.labels(self.endpoint).set(1)
            log.info("triton answers", replica=self.endpoint)
        if self._mends:
            serving -= await self._unload_broken()
        for version in self.ready.keys() - serving:
            del self.ready[version]
        missing = {model for model, _ in set(wanted) - serving}
        new = {version for version in wanted if version not in self.ready}
        await asyncio.gather(
            *(self._bring_up(version, load=version[0] in missing) for version in sorted(new))
        )

    def mark_down(self, reason: str) -> None:
        """Take no further calls until the next successful `refresh`."""
        if self.up:
            log.error("triton does not answer", replica=self.endpoint, reason=reason)
        self.up = False
        self.ready.clear()
        self._next_load.clear()
        metrics.REPLICA_UP.labels(self.endpoint).set(0)

    async def close(self) -> None:
        """Close the channel."""
        await self._client.close()

    async def _unload_broken(self) -> set[Version]:
        """Unload the models whose calls only fail; returns the versions that are gone."""
        broken = {model for model, count in self._failures.items() if count >= FAILURES}
        for model in broken:
            log.error("model only fails: loading it again", model=model, replica=self.endpoint)
            del self._failures[model]
            with suppress(InferenceServerException):  # it may have gone down meanwhile
                await self._client.unload_model(model, client_timeout=PROBE_TIMEOUT)
        return {version for version in self.ready if version[0] in broken}

    async def _bring_up(self, version: Version, *, load: bool) -> None:
        """Load the model if it is not there, and read its limits."""
        model, number = version
        if load and time.monotonic() < self._next_load.get(model, 0.0):
            return
        try:
            if load:
                await self._client.load_model(model, client_timeout=LOAD_TIMEOUT)
            if not await self._client.is_model_ready(
                model, str(number), client_timeout=PROBE_TIMEOUT
            ):
                raise InferenceServerException(f"Triton does not serve version {number}")  # noqa: TRY301
            answer = await self._client.get_model_config(
                model, str(number), client_timeout=PROBE_TIMEOUT
            )
        except InferenceServerException as error:
            reason = error.message()
            self._next_load[model] = time.monotonic() + RELOAD_PAUSE
            if self.problems.get(model) != reason:
                log.warning("model not ready", model=model, replica=self.endpoint, reason=reason)
            self.problems[model] = reason
            return
        instances = sum(
            group.count * max(1, len(group.gpus)) for group in answer.config.instance_group
        )
        self.ready[version] = Limits(answer.config.max_batch_size, instances)
        self.problems.pop(model, None)
        log.info("model ready", model=model, version=number, replica=self.endpoint)


def _input(name: str, array: NDArray[Any]) -> triton.InferInput:
    tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(np.ascontiguousarray(array))
    return tensor
