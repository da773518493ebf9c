"""One Triton server: what it serves, and how it gets to serve what is wanted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import NamedTuple

import structlog
from tritonclient.grpc import aio as triton
from tritonclient.utils import InferenceServerException

from gateway.telemetry import metrics
from gateway.triton.configs import ConfigError, Configs
from gateway.triton.health import ReloadPauses
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

    With `reloads`, a model that is dead or half dead is reloaded (see `health`); `reloading` holds
    the versions that will be ready again for that reason, or because somebody else reloads them.
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
        self.reloading: set[ModelVersion] = set()
        self._condemned: dict[str, str] = {}  # models to unload and load, with the reason
        self._pauses = ReloadPauses()
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

    @property
    def ailing(self) -> dict[str, str]:
        """The models that are dead or half dead, with the reason and what is done about it."""
        found = {}
        for version, record in self.inference.health.broken().items():
            pause = self._pauses.left(version.model)
            then = f"next reload in {pause:.0f} s" if self._reloads else "reload it"
            found[version.model] = f"{record.verdict}: {record}; {then}"
        for model, reason in self._condemned.items():
            found[model] = f"{reason}; reloading it"
        return found

    async def refresh(self, wanted: Mapping[ModelVersion, Files]) -> None:
        """Check what this server serves; load what is wanted but missing or from other files.

        Does not raise: `status` and `problems` (by model) tell what is wrong.
        """
        self.reloading &= wanted.keys()
        if self._reloads:
            self._condemn()
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
        serving = {version for version in serving if version.model not in self._condemned}
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
        self.reloading.clear()
        self._condemned.clear()
        self.inference.health.records.clear()
        self._answered.clear()
        self._next_load.clear()
        metrics.REPLICA_UP.labels(self.endpoint).set(0)

    async def close(self) -> None:
        """Close the channels."""
        await self.inference.close()
        await self._client.close()

    def lose(self, version: ModelVersion, load: int) -> None:
        """Note that a load of a version is gone; the next `refresh` brings it back if wanted."""
        loaded = self.ready.get(version)
        if loaded and loaded.load == load:
            del self.ready[version]
            self.reloading.add(version)

    def _condemn(self) -> None:
        """Take away the models that are dead or half dead, as often as is allowed.

        No call is sent to them from now on; those that come wait until they are loaded again.
        """
        for version, record in self.inference.health.broken().items():
            model = version.model
            if model in self._condemned or self._pauses.left(model):
                continue
            self._pauses.begin(model)
            self._condemned[model] = f"{record.verdict}: {record}"
            gone = {version for version in self.ready if version.model == model}
            self.ready = {v: loaded for v, loaded in self.ready.items() if v not in gone}
            self.reloading |= gone
            metrics.MODEL_RELOADS.labels(model).inc()
            reason = self._condemned[model]
            log.error("reloading a model", model=model, replica=self.endpoint, reason=reason)

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
            if model in self._condemned:
                await self._control.unload(model)
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
            self.inference.health.forget(model)
        finally:
            self._condemned.pop(model, None)
            self.reloading = {version for version in self.reloading if version.model != model}
