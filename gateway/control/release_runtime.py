"""One declared release in one gateway: environment → workers → verification → batcher."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import structlog
from gateway_preprocessor.wire import Identity

from gateway.control import verification
from gateway.control.definition import Definition
from gateway.control.states import ReleaseState, ReleaseStatus
from gateway.control.verification import Verification
from gateway.errors import GatewayError, InferenceFailed, public
from gateway.preprocessing.environments import EnvironmentFailure
from gateway.preprocessing.installed import PreprocessorUnavailable
from gateway.preprocessing.status import WorkerState
from gateway.preprocessing.workers import Preprocessing, Workers
from gateway.releases.alignment import Misaligned
from gateway.releases.lock import LockedRelease
from gateway.releases.manifest import Release
from gateway.serving.batcher import Batcher
from gateway.serving.limiter import CallLimiter
from gateway.settings import Settings
from gateway.telemetry import metrics
from gateway.triton.model_control import LoadedVersion
from gateway.triton.pool import TritonPool, VersionState
from gateway.triton.replica import Replica

log = structlog.get_logger(__name__)

#: Seconds after which a rejected release is tried again, even if nothing has changed.
RETRY_SECONDS = 30.0


class Resources(NamedTuple):
    """What all releases of a gateway share."""

    settings: Settings
    triton: TritonPool
    workers: Workers
    limiter: CallLimiter


class ReleaseRuntime:
    """Starts a release and keeps it verified.

    `batcher` and `verification` exist as soon as its workers run. `verified` says whether it has
    been verified on a replica since its last rejection. `successor` is a newer definition of it.
    """

    def __init__(self, definition: Definition, resources: Resources) -> None:
        self.definition = definition
        self.batcher: Batcher | None = None
        self.verified = False
        self.successor: ReleaseRuntime | None = None
        self._rejection: str | None = None
        self._resources = resources
        self._folder: Path = resources.settings.repository / definition.model
        self._preprocessing: Preprocessing | None = None
        self.verification: Verification | None = None
        self._tried = 0.0
        self._task: asyncio.Task[None] | None = None
        self._checks: dict[Replica, tuple[int, asyncio.Task[None]]] = {}

    @property
    def status(self) -> ReleaseStatus:
        """The present state of the release."""
        if self._rejection is not None:
            return ReleaseStatus(ReleaseState.REJECTED, public(self._rejection))
        if self.batcher is None or self._preprocessing is None:
            return ReleaseStatus(ReleaseState.LOADING, "preparing environment and workers")
        workers = self._preprocessing.status
        if workers.state is not WorkerState.READY:
            return ReleaseStatus(ReleaseState.UNAVAILABLE, public(workers.reason))
        version = self._resources.triton.status(self.batcher.verified)
        if version.state is VersionState.READY:
            return ReleaseStatus(ReleaseState.READY)
        passing = version.state is VersionState.VERIFYING or (
            version.state is not VersionState.FAILED and not self.verified
        )
        state = ReleaseState.ALIGNING if passing else ReleaseState.UNAVAILABLE
        return ReleaseStatus(state, public(version.reason))

    @property
    def rejected(self) -> bool:
        """Whether it was rejected, and is not being tried again."""
        return self._rejection is not None

    @property
    def answering(self) -> bool:
        """Whether requests are answered, if need be after a reload has been verified."""
        state = self.status.state
        return state is ReleaseState.READY or (self.verified and state is ReleaseState.ALIGNING)

    @property
    def dead(self) -> dict[str, str]:
        """Its dead workers, with the reason."""
        found = self._preprocessing.dead if self._preprocessing else {}
        return {name: public(reason) for name, reason in found.items()}

    @property
    def pids(self) -> Sequence[int]:
        """The worker processes that this gateway runs for it."""
        return self._preprocessing.pids if self._preprocessing else ()

    @property
    def identity(self) -> Identity | None:
        """How its workers identify themselves; None before the first one is up."""
        return self._preprocessing.identity if self._preprocessing else None

    @property
    def libraries(self) -> dict[str, str]:
        """The distributions in its environment; if inline, only its preprocessor."""
        if (identity := self.identity) is None:
            return {}
        name, _, version = identity.distribution.partition("==")
        inline = self.definition.release.isolation == "inline"
        return {name: version} if inline else identity.installed

    def start(self) -> None:
        """Start, or restart after a rejection."""
        self._rejection = None
        self._tried = time.monotonic()
        self._task = asyncio.create_task(self._bring_up())

    def retry(self, *, now: bool) -> None:
        """Retry a rejected release: `now`, or if the last attempt was long ago."""
        long_ago = time.monotonic() - self._tried > RETRY_SECONDS
        if self._rejection is not None and (now or long_ago) and self._task and self._task.done():
            self.start()

    def advance(self) -> None:
        """Verify the release on every replica that has (re)loaded its version."""
        if self.verification is None or self.batcher is None:
            return
        for replica in self._resources.triton.replicas:
            loaded = replica.ready.get(self.definition.version)
            if loaded is None or self.batcher.verified.loads.get(replica.endpoint) == loaded.load:
                continue
            if self._awaits(replica, loaded):
                continue
            load, task = self._checks.get(replica, (0, None))
            if task is None or (task.done() and load != loaded.load):
                check = asyncio.create_task(self._verify(self.verification, self.batcher, replica))
                self._checks[replica] = loaded.load, check

    def _awaits(self, replica: Replica, loaded: LoadedVersion) -> bool:
        """Whether a load is not to be verified: other files, or another definition, come next."""
        new, locked = self.successor, self.definition.locked
        if new and not new.rejected and new.definition.replaces_files_of(self.definition):
            # With the same preprocessor, its proof of the new files holds here, too: requests in
            # flight wait for it.
            verified = new.batcher.verified.loads if new.batcher else {}
            if self.batcher and verified.get(replica.endpoint) == loaded.load:
                self.batcher.verified.loads[replica.endpoint] = loaded.load
            return True
        files, triton = locked.model if locked else {}, self._resources.triton
        if triton.wanted(self.definition.version) != files or loaded.files in ({}, files):
            return False
        problem = replica.problems.get(self.definition.model)
        if problem and not self.rejected:
            self._reject(f"Triton cannot load the locked files: {problem}")
        return True

    async def close(self) -> None:
        """Stop all work and close the workers."""
        tasks = [task for _, task in self._checks.values()]
        tasks += [self._task] if self._task else []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.batcher:
            await self.batcher.close()
        if self._preprocessing:
            await self._resources.workers.release(self._preprocessing)
            self._preprocessing = None
        metrics.RELEASE_READY.labels(self.definition.model, self.definition.name).set(0)

    async def _bring_up(self) -> None:
        triton, locked = self._resources.triton, self.definition.locked
        known = triton.wanted(self.definition.version)
        anew = bool(known and locked and known != locked.model)
        # Releases that were locked anew together are loaded together.
        with triton.announced() if anew else nullcontext():
            await self._prepare()

    async def _prepare(self) -> None:
        definition, triton = self.definition, self._resources.triton
        model, name, release, locked = definition
        try:
            if locked is None:
                raise Misaligned(f"it is not locked: run `gateway lock {model}`")  # noqa: TRY301
            with triton.announced():
                await verification.verify_files(self._folder, name, release, locked)
                # Triton loads while the workers start, unless it has the version from other files.
                triton.want(definition.version, locked.model, anew=False)
            if self._preprocessing is None:
                self._preprocessing = await self._start_workers(release, locked)
            checks = Verification(self._folder, name, release, locked, self._preprocessing)
            await checks.verify_workers()
        except (Misaligned, PreprocessorUnavailable, EnvironmentFailure) as error:
            self._reject(str(error))
            return
        if self.batcher is None:
            limiter, queue_rows = self._resources.limiter, self._resources.settings.queue_rows
            self.batcher = Batcher(
                model, name, release, self._preprocessing, triton, limiter, queue_rows
            )
        self.verification = checks
        self._checks.clear()
        triton.want(definition.version, locked.model)
        triton.changed.set()

    async def _start_workers(self, release: Release, locked: LockedRelease) -> Preprocessing:
        workers = self._resources.workers
        if release.isolation == "inline":
            return await workers.inline(release.preprocessor)
        return await workers.isolated(locked.preprocessor, locked.requirements)

    async def _verify(self, checks: Verification, batcher: Batcher, replica: Replica) -> None:
        model, name = self.definition.model, self.definition.name
        try:
            load = await checks.verify_replica(replica)
        except (Misaligned, InferenceFailed) as error:
            batcher.verified.loads.pop(replica.endpoint, None)
            if isinstance(error, Misaligned) or not batcher.able:
                self._reject(str(error))
            else:  # other replicas have it
                asyncio.get_event_loop().call_later(RETRY_SECONDS, self._checks.pop, replica, None)
        except GatewayError as error:
            # Triton did not answer; the next check finds it again, or reloaded.
            log.warning("verification put off", model=model, release=name, reason=error.detail)
            self._checks.pop(replica, None)
        else:
            batcher.verified.loads[replica.endpoint] = load
            self.verified, self._rejection = True, None
            log.info("release aligned", model=model, release=name)
        self._resources.triton.changed.set()

    def _reject(self, reason: str) -> None:
        self._rejection = reason
        self.verified = False
        metrics.RELEASE_REJECTIONS.labels(self.definition.model, self.definition.name).inc()
        self._resources.triton.changed.set()
