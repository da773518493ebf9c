"""One Triton server, over gRPC: inference, model loading, health."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import grpc
import structlog
from gateway_preprocessor import TensorSpec
from numpy.typing import NDArray
from tritonclient.grpc import aio as triton
from tritonclient.utils import InferenceServerException

from gateway.errors import InferenceFailed
from gateway.telemetry import metrics
from gateway.triton import errors
from gateway.triton.configs import ConfigError, Configs
from gateway.triton.control import Control, Files, Served, Version
from gateway.triton.inference import Inference

log = structlog.get_logger(__name__)

#: A restarted server is found again within a second; gRPC's own default backs off to two minutes.
CHANNEL = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)
#: Seconds before a model that failed to load is tried again.
RELOAD_PAUSE = 10.0
#: Calls that must fail in a row before a model counts as broken.
FAILURES = 3


class Replica:
    """A Triton server that the gateway sends calls to. `ready` holds what it serves now.

    With `mends`, a model that only fails is unloaded and loaded again: where a Python-based
    backend's process has died, Triton still calls its model ready.
    """

    def __init__(
        self, endpoint: str, configs: Configs, digest: Callable[[Version], Files], *, mends: bool
    ) -> None:
        self.endpoint = endpoint
        self._mends = mends
        self._failures: Counter[str] = Counter()
        self._answered: dict[Version, int] = {}
        self.ready: dict[Version, Served] = {}
        self.problems: dict[str, str] = {}
        self.up = False
        self.in_flight = 0
        self._next_load: dict[str, float] = {}
        self._inference = Inference(endpoint, CHANNEL)
        self._client = triton.InferenceServerClient(endpoint, channel_args=CHANNEL)
        self._control = Control(self._client, configs, digest)

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
        model = version[0]
        self.in_flight += 1
        try:
            found = await self._inference.infer(version, tensors, outputs, timeout)
        except grpc.aio.AioRpcError as error:
            reason = error.details()
            log.warning("inference failed", model=model, replica=self.endpoint, reason=reason)
            told = errors.translated(error.code())
            self._failures[model] += isinstance(told, InferenceFailed)
            raise told from None
        except ValueError as error:  # Mismatch, or bytes that are no such array
            reason = str(error)
            log.error("a wrong answer", model=model, replica=self.endpoint, reason=reason)  # noqa: TRY400
            raise InferenceFailed("Triton's answer does not fit the request.") from None
        finally:
            self.in_flight -= 1
        self._failures.pop(model, None)
        return found

    async def refresh(self, wanted: Mapping[Version, Files]) -> None:
        """Find out what this server serves; load what is wanted and not there, or from other files.

        Never raises: what is wrong is left in `up` and `problems` (by model).
        """
        try:
            serving = await self._control.ready()
            reloaded = await self._reloaded()
        except InferenceServerException as error:
            self.mark_down(error.message() or "no answer")
            return
        if not self.up:
            self.up = True
            metrics.REPLICA_UP.labels(self.endpoint).set(1)
            log.info("triton answers", replica=self.endpoint)
        if self._mends:
            serving -= await self._unload_broken()
        for version in self.ready.keys() - serving:
            del self.ready[version]
        stale = {
            v for v, files in wanted.items() if v in self.ready and self.ready[v].files != files
        }
        new = (wanted.keys() - self.ready.keys()) | (wanted.keys() & reloaded) | stale
        await asyncio.gather(
            *(
                self._bring_up(model, {v: wanted[v] for v in new if v[0] == model}, serving - stale)
                for model in sorted({model for model, _ in new})
            )
        )

    async def unload(self, version: Version) -> None:
        """Have the server drop one version; requests that it has already taken still finish.

        Raises InferenceServerException.
        """
        model, number = version
        rest = {n for m, n in self.ready if m == model} - {number}
        self.ready.pop(version, None)
        if rest:
            await self._control.load(model, rest, new=())
        else:
            await self._control.unload(model)
        log.info("version unloaded", model=model, version=number, replica=self.endpoint)

    def mark_down(self, reason: str) -> None:
        """Take no further calls until the next successful `refresh`."""
        if self.up:
            log.error("triton does not answer", replica=self.endpoint, reason=reason)
        self.up = False
        self.ready.clear()
        self._answered.clear()
        self._next_load.clear()
        metrics.REPLICA_UP.labels(self.endpoint).set(0)

    async def close(self) -> None:
        """Close the channels."""
        await self._inference.close()
        await self._client.close()

    async def _unload_broken(self) -> set[Version]:
        """Unload the models whose calls only fail; returns the versions that are gone."""
        broken = {model for model, count in self._failures.items() if count >= FAILURES}
        for model in broken:
            log.error("model only fails: loading it again", model=model, replica=self.endpoint)
            del self._failures[model]
            with suppress(InferenceServerException):  # it may have gone down meanwhile
                await self._control.unload(model)
        return {version for version in self.ready if version[0] in broken}

    async def _reloaded(self) -> set[Version]:
        """Return the versions that somebody loaded anew: their statistics began again."""
        before, self._answered = self._answered, await self._control.answered()
        return {v for v in self.ready if self._answered.get(v, 0) < before.get(v, 0)}

    async def _bring_up(
        self, model: str, wanted: Mapping[Version, Files], serving: set[Version]
    ) -> None:
        """Load what is missing of a model's versions, and read how they are served.

        A version that is served already counts as loaded from the files that are wanted.
        """
        missing = wanted.keys() - serving
        if missing and time.monotonic() < self._next_load.get(model, 0.0):
            return
        files = dict(wanted)
        try:
            if missing:
                numbers = {n for m, n in wanted.keys() | serving if m == model}
                files |= await self._control.load(model, numbers, new=[n for _, n in missing])
            for version in sorted(wanted):
                self.ready[version] = await self._control.describe(version, files[version])
                log.info("model ready", model=model, version=version[1], replica=self.endpoint)
            if missing and any(files[version] != wanted[version] for version in missing):
                self._next_load[model] = time.monotonic() + RELOAD_PAUSE
        except (InferenceServerException, ConfigError) as error:
            reason = error.message() if isinstance(error, InferenceServerException) else str(error)
            self._next_load[model] = time.monotonic() + RELOAD_PAUSE
            if self.problems.get(model) != reason:
                log.warning("model not ready", model=model, replica=self.endpoint, reason=reason)
            self.problems[model] = reason
        else:
            self.problems.pop(model, None)
