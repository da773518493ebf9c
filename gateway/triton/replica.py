"""One Triton server: what it serves, and how it gets to serve what is wanted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import StrEnum
from typing import NamedTuple

import structlog
from tritonclient.grpc import aio as triton
from tritonclient.utils import InferenceServerException

from gateway.telemetry import metrics
from gateway.triton.configs import ConfigError, Configs
from gateway.triton.inference import Inference
from gateway.triton.model_control import Files, LoadedVersion, ModelControl, ModelVersion

log = structlog.get_logger(__name__)

#: Find a restarted server within a second; gRPC's default backs off to two minutes.
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


class ReplicaState(StrEnum):
    """Whether a Triton server can be called."""

    UNKNOWN = "unknown"  # not checked yet
    UP = "up"
    DOWN = "down"  # it does not answer; it is checked again and again


class ReplicaStatus(NamedTuple):
    """The state, and its reason for operators; empty if the state says it all."""

    state: ReplicaState = ReplicaState.UNKNOWN
    reason: str = "has not answered yet"


class Replica:
    """A Triton server that the gateway calls. `ready` holds what it serves.

    With `reloads`, a model whose calls all fail is reloaded: when the process of a Python-based
    backend has died, Triton still calls its model ready.
    """

    def __init__(
        self,
        endpoint: str,
        configs: Configs,
        digest: Callable[[ModelVersion], Files],
        *,
        reloads: bool,
    ) -> None:
        self.endpoint = endpoint
        self._reloads = reloads
        self._answered: dict[ModelVersion, int] = {}
        self.ready: dict[ModelVersion, LoadedVersion] = {}
        self.problems: dict[str, str] = {}
        self.status = ReplicaStatus()
        self._next_load: dict[str, float] = {}
        self.inference = Inference(endpoint, CHANNEL)
        self._client = triton.InferenceServerClient(endpoint, channel_args=CHANNEL)
        self._control = ModelControl(self._client, configs, digest)

    @property
    def up(self) -> bool:
        """Whether it can be called."""
        return self.status.state is ReplicaState.UP

    async def refresh(self, wanted: Mapping[ModelVersion, Files]) -> None:
        """Check what this server serves; load what is wanted but missing or from other files.

        Does not raise: `status` and `problems` (by model) tell what is wrong.
        """
        try:
            serving = await self._control.ready()
            reloaded = await self._reloaded()
        except InferenceServerException as error:
            self.mark_down(error.message() or "no answer")
            return
        if not self.up:
            self.status = ReplicaStatus(ReplicaState.UP, "")
            metrics.REPLICA_UP.labels(self.endpoint).set(1)
            log.info("triton answers", replica=self.endpoint)
        if self._reloads:
            serving -= await self._unload_broken()
        for version in self.ready.keys() - serving:
            del self.ready[version]
        stale = {
            v for v, files in wanted.items() if v in self.ready and self.ready[v].files != files
        }
        new = (wanted.keys() - self.ready.keys()) | (wanted.keys() & reloaded) | stale
        await asyncio.gather(
            *(
                self._bring_up(
                    model, {v: wanted[v] for v in new if v.model == model}, serving - stale
                )
                for model in sorted({model for model, _ in new})
            )
        )

    async def unload(self, version: ModelVersion) -> None:
        """Unload one version; requests in progress still finish.

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
        """Take no calls until the next successful `refresh`."""
        if self.up:
            log.error("triton does not answer", replica=self.endpoint, reason=reason)
        self.status = ReplicaStatus(ReplicaState.DOWN, f"does not answer: {reason}")
        self.ready.clear()
        self._answered.clear()
        self._next_load.clear()
        metrics.REPLICA_UP.labels(self.endpoint).set(0)

    async def close(self) -> None:
        """Close the channels."""
        await self.inference.close()
        await self._client.close()

    async def _unload_broken(self) -> set[ModelVersion]:
        """Unload the models whose calls all fail; return the versions that are gone."""
        broken = {model for model, count in self.inference.failures.items() if count >= FAILURES}
        for model in broken:
            log.error("all calls of a model fail: reloading it", model=model, replica=self.endpoint)
            del self.inference.failures[model]
            with suppress(InferenceServerException):  # the server may be down by now
                await self._control.unload(model)
        return {version for version in self.ready if version.model in broken}

    async def _reloaded(self) -> set[ModelVersion]:
        """Return the versions that someone has reloaded: their statistics started over."""
        before, self._answered = self._answered, await self._control.answered()
        return {v for v in self.ready if self._answered.get(v, 0) < before.get(v, 0)}

    async def _bring_up(
        self, model: str, wanted: Mapping[ModelVersion, Files], serving: set[ModelVersion]
    ) -> None:
        """Load the missing versions of a model, and read how they are served.

        A version that is already served counts as loaded from the wanted files.
        """
        missing = wanted.keys() - serving
        if missing and time.monotonic() < self._next_load.get(model, 0.0):
            return
        files = dict(wanted)
        try:
            if missing:
                numbers = {n for m, n in wanted.keys() | serving if m == model}
                files |= await self._control.load(model, numbers, new=[n for _, n in missing])
                # Its statistics begin again: not the sign of somebody else's reload.
                self._answered = {v: n for v, n in self._answered.items() if v.model != model}
            for version in sorted(wanted):
                self.ready[version] = await self._control.describe(version, files[version])
                log.info("model ready", model=model, version=version.number, replica=self.endpoint)
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
