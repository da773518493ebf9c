"""All Triton replicas: watches them, and sends each call to the least loaded one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from enum import StrEnum
from functools import partial
from typing import Any, NamedTuple

import msgspec
import structlog
from gateway_preprocessor import TensorSpec
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from gateway.deadline import Deadline
from gateway.errors import GatewayError, InferenceFailed, ReleaseNotReady, TritonUnreachable
from gateway.triton.attempts import Attempts
from gateway.triton.balance import Balance
from gateway.triton.channel import Server, Tls
from gateway.triton.configs import Configs
from gateway.triton.model_control import Files, ModelVersion
from gateway.triton.replica import Replica
from gateway.triton.replicas import Replicas, Resolve, resolve
from gateway.triton.wanted import Wanted
from gateway.triton.watch import Watch

log = structlog.get_logger(__name__)

#: Seconds that a call waits for a version to be reloaded and verified, and between two checks.
VERIFY_SECONDS, VERIFY_PAUSE = 10.0, 0.02


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

    `endpoints` are `host:port`, or `dns:name:port` for all addresses of a name, as `look_up` finds
    them. `digest` returns the digests of a version's files. For `reloads` see Replica. `changed` is
    set when a replica serves something new. Raises OSError if a file of `tls` cannot be read.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        configs: Configs,
        digest: Callable[[ModelVersion], Files],
        *,
        reloads: bool = False,
        tls: Tls | None = None,
        look_up: Resolve = resolve,
    ) -> None:
        self.changed = asyncio.Event()
        self._wanted = Wanted()
        self._balance = Balance()

        def make(endpoint: str, name: str | None) -> tuple[Replica, Watch]:
            replica = Replica(Server(endpoint, tls, name), configs, digest, reloads=reloads)
            return replica, Watch(replica, self._wanted, self.changed)

        self._members = Replicas(endpoints, make, look_up)
        self.replicas = self._members.replicas

    def start(self) -> None:
        """Start to watch the replicas; calls succeed after the first check."""
        self._members.start()

    async def close(self) -> None:
        """Stop watching and close the channels."""
        await self._members.close()

    @property
    def unresolved(self) -> dict[str, str]:
        """The names of replicas that cannot be looked up now, with the reason."""
        return self._members.unresolved

    def announced(self) -> AbstractContextManager[None]:
        """Delay loads while the block determines whether it wants a version (see Wanted)."""
        return self._wanted.announced()

    def want(self, version: ModelVersion, files: Files, *, anew: bool = True) -> None:
        """Have every replica load a version from these files, and keep it.

        Without `anew`, a version that is wanted from other files is left alone.
        """
        if self._wanted.add(version, files, anew=anew):
            for replica in self.replicas:
                replica.alarm.set()

    def wanted(self, version: ModelVersion) -> Files | None:
        """Return the files from which every replica should have a version."""
        return self._wanted.versions.get(version)

    async def drop(self, version: ModelVersion) -> None:
        """Have every replica unload a version."""
        self._wanted.versions.pop(version, None)
        for replica in list(self.replicas):  # more may come meanwhile
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
        if self._soon(verified.version):
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

        A call that fails by the server's fault is repeated, elsewhere if possible. Waits for a
        version that is being reloaded to be verified again. Raises GatewayError: ReleaseNotReady or
        TritonUnreachable if no replica can take the call.
        """
        version = verified.version
        attempts: Attempts | None = None
        patience = min(deadline.at, time.monotonic() + VERIFY_SECONDS)
        while True:
            able = self.able(verified)
            if attempts:
                able = attempts.rest(able)
            if not able:
                if time.monotonic() > patience or not self._soon(version, attempts):
                    raise (attempts and attempts.failure) or self._unable()
                await asyncio.sleep(VERIFY_PAUSE)
                continue
            replica = able[0] if len(able) == 1 else self._balance.choose(able, version)
            load = verified.loads[replica.endpoint]
            infer = replica.inference.infer
            if len(self.replicas) > 1:
                infer = partial(self._balance.infer, replica)
            try:
                found = await infer(version, tensors, outputs, deadline)
            except (InferenceFailed, TritonUnreachable, ReleaseNotReady) as error:
                self._members.note(replica, error)
                attempts = attempts or Attempts(version)
                attempts.add(replica, load, error)
                # Time to take a model away that has just been found dead: the call then waits.
                await asyncio.sleep(VERIFY_PAUSE)
            else:
                if attempts:
                    attempts.succeeded()
                return found

    def require_able(self, verified: Verified) -> None:
        """Raise TritonUnreachable or ReleaseNotReady if no replica is able, or will be soon."""
        for replica in self.replicas:
            if verified.version in replica.ready:
                return
        if not self._soon(verified.version):
            raise self._unable()

    def _soon(self, version: ModelVersion, attempts: Attempts | None = None) -> bool:
        """Whether a replica serves the version, verified or not, or is reloading it."""
        for replica in self.replicas:
            if version in replica.reloading:
                return True
            if version in replica.ready and (attempts is None or attempts.possible(replica)):
                return True
        return False

    def _unable(self) -> GatewayError:
        if self.reachable:
            return ReleaseNotReady("No Triton replica serves this model version now.")
        return TritonUnreachable("No Triton replica answers now.")
