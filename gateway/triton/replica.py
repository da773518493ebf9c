"""One Triton server: what it serves, and how it gets to serve what is wanted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import partial
from typing import NamedTuple

import structlog
from tritonclient.utils import InferenceServerException

from gateway.telemetry import metrics
from gateway.triton.channel import Server
from gateway.triton.configs import ConfigError, Configs, FileStamps
from gateway.triton.inference import Inference, Proof
from gateway.triton.mending import Mending
from gateway.triton.model_control import Files, LoadedVersion, ModelControl, ModelVersion

log = structlog.get_logger(__name__)

#: Seconds before a model that failed to load is tried again, unless its files change before.
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


class PassedBy(NamedTuple):
    """Why a replica gets no calls of a version, and the moment until which that holds."""

    until: float
    reason: str


class Replica:
    """A Triton server that the gateway calls. `ready` holds what it serves.

    `alarm` asks for a `refresh`: set by whoever suspects a change, and when a load has ended.
    `reloading` holds the versions that will be ready again soon, because they are reloaded: here
    (for `reloads` see Mending) or by somebody else. `passed_by` holds the
    versions of which it gets no calls for a while, although it could (see Balance).
    """

    def __init__(
        self,
        server: Server,
        configs: Configs,
        digest: Callable[[ModelVersion], Files],
        *,
        reloads: bool,
    ) -> None:
        self.endpoint = server.endpoint
        self.alarm = asyncio.Event()
        self.ready: dict[ModelVersion, LoadedVersion] = {}
        self.reloading: set[ModelVersion] = set()
        self.problems: dict[str, str] = {}
        self.passed_by: dict[ModelVersion, PassedBy] = {}
        self.status = ReplicaStatus()
        self.inference = Inference(server)
        self._answered: dict[ModelVersion, int] = {}
        self._postponed: dict[str, tuple[float, FileStamps]] = {}
        self._loads: dict[str, asyncio.Task[None]] = {}
        self._mending = Mending(self.inference.health, reloads=reloads)
        self._control = ModelControl(server, configs, digest)

    @property
    def up(self) -> bool:
        """Whether it can be called."""
        return self.status.state is ReplicaState.UP

    @property
    def ailing(self) -> dict[str, str]:
        """The models of which it fails calls, or is too slow, and what is done about it."""
        now = time.monotonic()
        found = {v.model: one.reason for v, one in self.passed_by.items() if now < one.until}
        return found | self._mending.ailing

    async def probe(self, seconds: float) -> Proof:
        """Ask whether it answers. Does not raise."""
        return await self.inference.probe(seconds)

    async def refresh(self, wanted: Mapping[ModelVersion, Files]) -> None:
        """Check what this server serves; start to load what is missing or from other files.

        Does not wait for the loads, and does not raise: `status` and `problems` (by model) tell
        what is wrong.
        """
        self.reloading &= wanted.keys()
        self.inference.give_up_stuck()
        for model, reason in self._mending.condemn().items():
            self._take_away(model)
            metrics.MODEL_RELOADS.labels(model).inc()
            log.error("reloading a model", model=model, replica=self.endpoint, reason=reason)
        try:
            serving = await self._control.ready()
            reloaded = await self._reloaded()
        except InferenceServerException as error:
            reason = error.message() or "no answer"
            if not self.up:
                self.mark_down(f"its models cannot be listed: {reason}")
            log.warning("models not listed", replica=self.endpoint, reason=reason)
            return
        if not self.up:
            self.status = ReplicaStatus(ReplicaState.UP, "")
            metrics.REPLICA_UP.labels(self.endpoint).set(1)
            log.info("triton answers", replica=self.endpoint)
        serving = {v for v in serving if v.model not in self._mending.condemned}
        for version in self.ready.keys() - serving:
            del self.ready[version]
            self.reloading |= {version} & wanted.keys()  # somebody has unloaded it
        stale = {
            v for v, files in wanted.items() if v in self.ready and self.ready[v].files != files
        }
        new = (wanted.keys() - self.ready.keys()) | (wanted.keys() & reloaded) | stale
        for model in {model for model, _ in new} - self._loads.keys():
            versions = {v: wanted[v] for v in new if v.model == model}
            load = asyncio.create_task(self._bring_up(model, versions, serving - stale))
            self._loads[model] = load
            load.add_done_callback(partial(self._ended, model))

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
        self.passed_by.clear()
        self._mending.clear()
        for load in self._loads.values():
            load.cancel()
        self._answered.clear()
        self._postponed.clear()
        metrics.REPLICA_UP.labels(self.endpoint).set(0)

    async def reconnect(self) -> None:
        """Fail all calls in progress, and connect anew: the connection may be dead."""
        await self.inference.reconnect()
        await self._control.reconnect()

    def forget(self) -> None:
        """Show no state of it any more: it is no replica of ours now."""
        metrics.replica_gone(self.endpoint)

    async def close(self) -> None:
        """Stop loading and close the channels."""
        loads = list(self._loads.values())
        for load in loads:
            load.cancel()
        await asyncio.gather(*loads, return_exceptions=True)
        await self.inference.close()
        await self._control.close()

    def lose(self, version: ModelVersion, load: int) -> None:
        """Note that a load of a version is gone; the next `refresh` brings it back if wanted."""
        loaded = self.ready.get(version)
        if loaded and loaded.load == load:
            del self.ready[version]
            self.reloading.add(version)

    def _take_away(self, model: str) -> None:
        """Have the calls of a model wait until it is loaded again."""
        gone = {version for version in self.ready if version.model == model}
        self.ready = {v: loaded for v, loaded in self.ready.items() if v not in gone}
        self.reloading |= gone

    def _ended(self, model: str, load: asyncio.Task[None]) -> None:
        del self._loads[model]
        if not load.cancelled():
            self.alarm.set()

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
        stamps = await asyncio.to_thread(self._control.stamps, model)
        try:
            until, before = self._postponed.get(model, (0.0, stamps))
            if missing and stamps == before and time.monotonic() < until:
                return
            if model in self._mending.condemned:
                await self._control.unload(model)
            waited_for = any(version.model == model for version in self.reloading)
            serve = self._control.serve_again if waited_for else self._control.serve
            metrics.MODEL_RELOADS.labels(model)  # shown as 0 until it happens
            for version, loaded in (await serve(model, wanted, serving)).items():
                self.ready[version] = loaded
                log.info("model ready", model=model, version=version.number, replica=self.endpoint)
            if missing:
                # Its statistics begin again: not the sign of somebody else's reload.
                self._answered = {v: n for v, n in self._answered.items() if v.model != model}
            if any(self.ready[version].files != wanted[version] for version in missing):
                self._postponed[model] = time.monotonic() + RELOAD_PAUSE, stamps
        except (InferenceServerException, ConfigError, OSError) as error:
            reason = error.message() if isinstance(error, InferenceServerException) else str(error)
            self._postponed[model] = time.monotonic() + RELOAD_PAUSE, stamps
            if self.problems.get(model) != reason:
                log.warning("model not ready", model=model, replica=self.endpoint, reason=reason)
            self.problems[model] = reason
        except Exception:  # whatever happens, try again
            self._postponed[model] = time.monotonic() + RELOAD_PAUSE, stamps
            log.exception("loading a model failed", model=model, replica=self.endpoint)
        else:
            self.problems.pop(model, None)
            self._mending.mended(model)
        finally:
            self._mending.condemned.pop(model, None)
            self.reloading = {version for version in self.reloading if version.model != model}
