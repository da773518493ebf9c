"""All Triton replicas: watches them, and sends each call to the least loaded one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec
import structlog
from gateway_preprocessor import TensorSpec
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from gateway.deadline import Deadline
from gateway.errors import GatewayError, InferenceFailed, ReleaseNotReady, TritonUnreachable
from gateway.triton.configs import Configs
from gateway.triton.model_control import Files, ModelVersion
from gateway.triton.replica import Replica

log = structlog.get_logger(__name__)

#: Seconds between checks of a replica that answers, and of one that does not.
PROBE_UP = 2.0
PROBE_DOWN = 0.25
#: Most seconds that loads wait for versions that are about to be wanted.
GATHER = 2.0
#: Seconds that a call waits for a reloaded version to be verified, and between two checks.
VERIFY_SECONDS, VERIFY_PAUSE = 5.0, 0.02


class VersionState(StrEnum):
    """The state of a model version on the replicas, for one release."""

    READY = "ready"
    VERIFYING = "verifying"  # a replica serves it, but this load has not been verified yet
    LOADING = "loading"
    FAILED = "failed"  # no replica can load it
    UNREACHABLE = "unreachable"  # no replica answers


class VersionStatus(NamedTuple):
    """The state, and its reason for operators; empty where the state says it all."""

    state: VersionState
    reason: str = ""


class Verified(msgspec.Struct, eq=False):
    """Where a release has been verified: `loads` maps endpoints to `LoadedVersion.load`."""

    version: ModelVersion
    loads: dict[str, int] = {}


class TritonPool:
    """The replicas behind the gateway; every wanted version is loaded on each of them.

    `digest` returns the digests of a version's files. For `reloads` see Replica. `changed` is set
    when a replica serves something new.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        configs: Configs,
        digest: Callable[[ModelVersion], Files],
        *,
        reloads: bool = False,
    ) -> None:
        self.replicas = [
            Replica(endpoint, configs, digest, reloads=reloads) for endpoint in endpoints
        ]
        self.changed = asyncio.Event()
        self._wanted: dict[ModelVersion, Files] = {}
        self._announced = 0
        self._gathered = asyncio.Event()
        self._gathered.set()
        self._alarms = {replica: asyncio.Event() for replica in self.replicas}
        self._watches: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start to watch the replicas; calls succeed after the first check."""
        self._watches = [asyncio.create_task(self._watch(replica)) for replica in self.replicas]

    async def close(self) -> None:
        """Stop watching and close the channels."""
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        await asyncio.gather(*(replica.close() for replica in self.replicas))

    @contextmanager
    def announced(self) -> Iterator[None]:
        """Delay loads while the block determines whether it wants a version.

        Versions wanted at the same time are loaded together: a model's versions in one load, and
        models concurrently.
        """
        self._announced += 1
        self._gathered.clear()
        try:
            yield
        finally:
            self._announced -= 1
            if not self._announced:
                self._gathered.set()

    def want(self, version: ModelVersion, files: Files, *, anew: bool = True) -> None:
        """Have every replica load a version from these files, and keep it.

        Without `anew`, a version that is wanted from other files is left alone.
        """
        wanted = self._wanted.get(version)
        if wanted is None or (anew and wanted != files):
            self._wanted[version] = files
            for alarm in self._alarms.values():
                alarm.set()

    def wanted(self, version: ModelVersion) -> Files | None:
        """Return the files from which every replica should have a version."""
        return self._wanted.get(version)

    async def drop(self, version: ModelVersion) -> None:
        """Have every replica unload a version."""
        self._wanted.pop(version, None)
        for replica in self.replicas:
            if version in replica.ready:
                try:
                    await replica.unload(version)
                except InferenceServerException as error:
                    log.warning("not unloaded", replica=replica.endpoint, reason=error.message())

    def able(self, verified: Verified) -> list[Replica]:
        """Return the replicas that serve the version from the load that was verified."""
        found = []
        for replica in self.replicas:
            loaded = replica.ready.get(verified.version)
            if loaded and verified.loads.get(replica.endpoint) == loaded.load:
                found.append(replica)
        return found

    def limits(self, verified: Verified) -> tuple[int, int] | None:
        """Return the most rows per call and the total of instances; None if no replica is able."""
        rows = instances = 0
        for replica in (able := self.able(verified)):
            loaded = replica.ready[verified.version]
            rows = min(rows or loaded.max_batch_size, loaded.max_batch_size)
            instances += loaded.instances
        return (rows, instances) if able else None

    def status(self, verified: Verified) -> VersionStatus:
        """Return the state of the version."""
        if self.able(verified):
            return VersionStatus(VersionState.READY)
        if not self.reachable:
            return VersionStatus(VersionState.UNREACHABLE, "no Triton replica answers")
        if self._loaded(verified.version):
            return VersionStatus(VersionState.VERIFYING, "running its golden cases")
        model = verified.version.model
        problems = {r.problems[model] for r in self.replicas if r.up and model in r.problems}
        if problems:
            return VersionStatus(VersionState.FAILED, "; ".join(sorted(problems)))
        return VersionStatus(VersionState.LOADING, "Triton is loading it")

    @property
    def reachable(self) -> bool:
        """Whether any replica answers."""
        return any(replica.up for replica in self.replicas)

    async def infer(
        self,
        verified: Verified,
        tensors: Mapping[str, NDArray[Any]],
        outputs: Sequence[TensorSpec],
        deadline: Deadline,
    ) -> dict[str, NDArray[Any]]:
        """Run one call on the least loaded replica; on another one if that goes away.

        Waits for a version that has just been reloaded to be verified again. Raises GatewayError:
        ReleaseNotReady or TritonUnreachable if no replica can take the call.
        """
        tried: set[Replica] = set()
        failure: GatewayError | None = None
        patience = min(deadline.at, time.monotonic() + VERIFY_SECONDS)
        while True:
            able = self.able(verified)
            if tried:
                able = [replica for replica in able if replica not in tried]
            if not able:
                if failure or not self._loaded(verified.version) or time.monotonic() > patience:
                    raise failure or self._unable()
                await asyncio.sleep(VERIFY_PAUSE)
                continue
            replica = able[0] if len(able) == 1 else min(able, key=_calls_in_flight)
            try:
                return await replica.inference.infer(verified.version, tensors, outputs, deadline)
            except InferenceFailed:
                self._alarms[replica].set()
                raise
            except (TritonUnreachable, ReleaseNotReady) as error:
                tried.add(replica)
                failure = error
                self._alarms[replica].set()

    def require_able(self, verified: Verified) -> None:
        """Raise TritonUnreachable or ReleaseNotReady if no replica is able, or will be soon."""
        for replica in self.replicas:
            if verified.version in replica.ready:
                return
        raise self._unable()

    def _loaded(self, version: ModelVersion) -> bool:
        """Whether a replica serves the version, verified or not."""
        return any(version in replica.ready for replica in self.replicas)

    def _unable(self) -> GatewayError:
        if self.reachable:
            return ReleaseNotReady("No Triton replica serves this model version now.")
        return TritonUnreachable("No Triton replica answers now.")

    async def _watch(self, replica: Replica) -> None:
        alarm = self._alarms[replica]
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(GATHER):
                    await self._gathered.wait()
            alarm.clear()
            before = dict(replica.ready)
            try:
                await replica.refresh(dict(self._wanted))
            except Exception:  # whatever a server does, keep watching
                log.exception("checking a replica failed", replica=replica.endpoint)
                replica.mark_down("checking it failed")
            if replica.ready != before:
                self.changed.set()
            try:
                async with asyncio.timeout(PROBE_UP if replica.up else PROBE_DOWN):
                    await alarm.wait()
            except TimeoutError:
                continue


def _calls_in_flight(replica: Replica) -> int:
    return replica.inference.in_flight
