"""All Triton replicas: keeps them healthy, and sends each call to the least loaded one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import structlog
from gateway_preprocessor import TensorSpec
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from gateway.errors import GatewayError, InferenceFailed, ReleaseNotReady, TritonUnreachable
from gateway.triton.configs import Configs
from gateway.triton.control import Files, Version
from gateway.triton.errors import RETRY_AFTER
from gateway.triton.replica import Replica

log = structlog.get_logger(__name__)

#: Seconds between two looks at a replica, while it answers and while it does not.
PROBE_UP = 2.0
PROBE_DOWN = 0.25
#: Longest that loads wait, in seconds, for versions that are about to be wanted.
GATHER = 2.0
#: Seconds that a call waits for a version loaded anew to be proven, and between two looks.
PROOF_SECONDS, PROOF_PAUSE = 5.0, 0.02
LOADING, ALIGNING = "Triton is loading it", "its golden cases are being tried"


#: Endpoint → the load (`Served.load`) on which a release was proven.
Proven = Mapping[str, int]


class Cluster:
    """The replicas behind the gateway; every wanted version is loaded on each of them.

    `digest` reads the digests of a version's files. `mends` is for the embedded Triton: see
    Replica. `changed` is set when a replica serves something new.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        configs: Configs,
        digest: Callable[[Version], Files],
        *,
        mends: bool = False,
    ) -> None:
        self.replicas = [Replica(endpoint, configs, digest, mends=mends) for endpoint in endpoints]
        self.changed = asyncio.Event()
        self._wanted: dict[Version, Files] = {}
        self._announced = 0
        self._gathered = asyncio.Event()
        self._gathered.set()
        self._alarms = {replica: asyncio.Event() for replica in self.replicas}
        self._watches: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to watch the replicas; calls succeed once the first look is done."""
        self._watches = [asyncio.create_task(self._watch(replica)) for replica in self.replicas]

    async def close(self) -> None:
        """Stop watching and close the channels."""
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        await asyncio.gather(*(replica.close() for replica in self.replicas))

    @contextmanager
    def announced(self) -> Iterator[None]:
        """Have loads wait a moment while the block finds out whether to want a version.

        What is wanted at the same time is loaded at once: a model's versions in one load, and
        models side by side.
        """
        self._announced += 1
        self._gathered.clear()
        try:
            yield
        finally:
            self._announced -= 1
            if not self._announced:
                self._gathered.set()

    def want(self, version: Version, files: Files, *, anew: bool = True) -> None:
        """Have every replica load a version from these files, and keep it.

        Without `anew` a version that is wanted from other files is left alone.
        """
        wanted = self._wanted.get(version)
        if wanted is None or (anew and wanted != files):
            self._wanted[version] = files
            for alarm in self._alarms.values():
                alarm.set()

    async def drop(self, version: Version) -> None:
        """Have every replica unload a version."""
        self._wanted.pop(version, None)
        for replica in self.replicas:
            if version in replica.ready:
                try:
                    await replica.unload(version)
                except InferenceServerException as error:
                    log.warning("not unloaded", replica=replica.endpoint, reason=error.message())

    def able(self, version: Version, proven: Proven) -> list[Replica]:
        """Return the replicas that serve `version` from the very load that was proven."""
        return [
            replica
            for replica in self.replicas
            if (served := replica.ready.get(version))
            and proven.get(replica.endpoint) == served.load
        ]

    def limits(self, version: Version, proven: Proven) -> tuple[int, int] | None:
        """Return the most rows in a call and the instances in all; None where nobody is able."""
        found = [replica.ready[version] for replica in self.able(version, proven)]
        if not found:
            return None
        return min(item.max_batch_size for item in found), sum(i.instances for i in found)

    def problem(self, version: Version, proven: Proven) -> str | None:
        """Say why no replica is able to serve `version`; None where one is."""
        if self.able(version, proven):
            return None
        if not any(replica.up for replica in self.replicas):
            return "no Triton replica answers"
        if self._served(version):
            return ALIGNING
        reasons = {replica.problems.get(version[0], LOADING) for replica in self.replicas}
        return "; ".join(sorted(reasons))

    async def infer(
        self,
        version: Version,
        proven: Proven,
        tensors: Mapping[str, NDArray[Any]],
        outputs: Sequence[TensorSpec],
        timeout: float,  # noqa: ASYNC109 - gRPC enforces it
    ) -> dict[str, NDArray[Any]]:
        """Run one call on the least loaded replica; on another where that one went away.

        A version that was just loaded anew is waited for until it is proven again. Raises
        GatewayError: ReleaseNotReady or TritonUnreachable where none can take it.
        """
        tried: set[Replica] = set()
        failure: GatewayError | None = None
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout
        patience = clock() + min(timeout, PROOF_SECONDS)
        while True:
            able = [r for r in self.able(version, proven) if r not in tried]
            if not able:
                if failure or not self._served(version) or clock() > patience:
                    raise failure or self._unable()
                await asyncio.sleep(PROOF_PAUSE)
                continue
            replica = min(able, key=lambda item: item.in_flight)
            try:
                left = max(deadline - clock(), 0.001)
                return await replica.infer(version, tensors, outputs, left)
            except InferenceFailed:
                self._alarms[replica].set()
                raise
            except (TritonUnreachable, ReleaseNotReady) as error:
                tried.add(replica)
                failure = error
                self._alarms[replica].set()

    def require(self, version: Version, proven: Proven) -> None:
        """Raise TritonUnreachable or ReleaseNotReady where no replica is able, nor will be soon."""
        if not (self._served(version) or self.able(version, proven)):
            raise self._unable()

    def _served(self, version: Version) -> bool:
        """Whether a replica serves the version, proven or not."""
        return any(version in replica.ready for replica in self.replicas)

    def _unable(self) -> GatewayError:
        if any(replica.up for replica in self.replicas):
            return ReleaseNotReady(
                "No Triton replica serves this model version now.", retry_after=RETRY_AFTER
            )
        return TritonUnreachable("No Triton replica answers now.", retry_after=RETRY_AFTER)

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
            except Exception:  # the watch must outlive whatever a server can do to it
                log.exception("a look at Triton failed", replica=replica.endpoint)
                replica.mark_down("a look at it failed")
            if replica.ready != before:
                self.changed.set()
            try:
                async with asyncio.timeout(PROBE_UP if replica.up else PROBE_DOWN):
                    await alarm.wait()
            except TimeoutError:
                continue
