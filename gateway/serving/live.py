"""One declared release on its way to traffic: environment → worker → gate → lane."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import structlog
from gateway_preprocessor.wire import Identity

from gateway.errors import GatewayError, InferenceFailed, public
from gateway.preprocessing.environments import EnvironmentFailure
from gateway.preprocessing.installed import PreprocessorUnavailable
from gateway.preprocessing.workers import Worker, Workers
from gateway.releases.alignment import Misaligned
from gateway.releases.lock import LockedRelease
from gateway.releases.manifest import Release
from gateway.serving import gate
from gateway.serving.lane import Lane
from gateway.serving.turns import Turns
from gateway.settings import Settings
from gateway.telemetry import metrics
from gateway.triton.cluster import ALIGNING, LOADING, Cluster
from gateway.triton.control import Version
from gateway.triton.replica import Replica

log = structlog.get_logger(__name__)

#: Seconds after which a rejected release is looked at again, though nothing seems to have changed.
RETRY_SECONDS = 30.0
PREPARING = "its environment and worker are being prepared"
#: Reasons that pass by themselves, in the order of a start.
PASSING = (PREPARING, LOADING, ALIGNING)


class Live:
    """A release as declared and locked. `lane` is there as soon as its worker runs."""

    def __init__(
        self,
        folder: Path,
        name: str,
        release: Release,
        locked: LockedRelease | None,
        cluster: Cluster,
        workers: Workers,
        turns: Turns,
        settings: Settings,
    ) -> None:
        self.model = folder.name
        self.name = name
        self.release = release
        self.lane: Lane | None = None
        self.proven = False
        self.rejected = ""
        self._folder = folder
        self._locked = locked
        self._cluster = cluster
        self._workers = workers
        self._turns = turns
        self._settings = settings
        self._worker: Worker | None = None
        self._gate: gate.Gate | None = None
        self._looked = 0.0
        self._task: asyncio.Task[None] | None = None
        self._proofs: dict[Replica, tuple[int, asyncio.Task[None]]] = {}

    @property
    def definition(self) -> tuple[str, str, Release, LockedRelease | None]:
        """What tells one release from another; another definition is another release."""
        return self.model, self.name, self.release, self._locked

    @property
    def version(self) -> Version:
        """The model version in Triton."""
        return self.model, self.release.model_version

    @property
    def state(self) -> tuple[str, str]:
        """One word for people, and the reason where it is not `ready`."""
        if self.rejected:
            return "rejected", public(self.rejected)
        if self.lane is None:
            return "loading", PREPARING
        if problem := self.lane.problem:
            gone = self.proven and problem != ALIGNING
            return ("unavailable" if gone else "aligning"), public(problem)
        return "ready", ""

    @property
    def identity(self) -> Identity | None:
        """What runs as its preprocessor; None while nothing does."""
        return self._worker.identity if self._worker else None

    @property
    def libraries(self) -> dict[str, str]:
        """The distributions of its environment; inside the gateway, its preprocessor alone."""
        if (identity := self.identity) is None:
            return {}
        name, _, version = identity.distribution.partition("==")
        return {name: version} if self.release.isolation == "inline" else identity.installed

    def start(self) -> None:
        """Begin, or begin again after a rejection."""
        self.rejected = ""
        self._looked = time.monotonic()
        self._task = asyncio.create_task(self._prepare())

    def retry(self, *, now: bool) -> None:
        """Look at a rejected release again: `now`, or when it was long ago."""
        long_ago = time.monotonic() - self._looked > RETRY_SECONDS
        if self.rejected and (now or long_ago) and self._task and self._task.done():
            self.start()

    def advance(self) -> None:
        """Prove the release on every replica that has (re)loaded its version."""
        if self._gate is None or self.lane is None:
            return
        for replica in self._cluster.replicas:
            served = replica.ready.get(self.version)
            if served is None or self.lane.proven.get(replica.endpoint) == served.load:
                continue
            load, task = self._proofs.get(replica, (0, None))
            if task is None or (task.done() and load != served.load):
                proof = asyncio.create_task(self._prove(self._gate, self.lane, replica))
                self._proofs[replica] = served.load, proof

    async def idle(self) -> None:
        """Wait until no request is with the release."""
        if self.lane is not None:
            await self.lane.idle.wait()

    async def close(self) -> None:
        """Stop all work and let go of the worker."""
        tasks = [task for _, task in self._proofs.values()]
        tasks += [self._task] if self._task else []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.lane:
            await self.lane.close()
        if self._worker:
            await self._worker.close()
            self._worker = None
        metrics.RELEASE_READY.labels(self.model, self.name).set(0)

    async def _prepare(self) -> None:
        try:
            if self._locked is None:
                raise Misaligned(f"it is not locked: run `gateway lock {self.model}`")  # noqa: TRY301
            with self._cluster.announced():
                await gate.prove_files(self._folder, self.name, self.release, self._locked)
                # Triton loads while the worker starts, unless it serves it from other files.
                self._cluster.want(self.version, self._locked.model, anew=False)
            if self._worker is None:
                self._worker = await self._start_worker(self._locked)
            proof = gate.Gate(self._folder, self.name, self.release, self._locked, self._worker)
            await proof.prove_worker()
        except (Misaligned, PreprocessorUnavailable, EnvironmentFailure) as error:
            self._reject(str(error))
            return
        if self.lane is None:
            self.lane = Lane(
                self.model,
                self.name,
                self.release,
                self._worker,
                self._cluster,
                self._turns,
                self._settings.queue_rows,
            )
        self._gate = proof
        self._proofs.clear()
        self._cluster.want(self.version, self._locked.model)

    async def _start_worker(self, locked: LockedRelease) -> Worker:
        if self.release.isolation == "inline":
            return await self._workers.inline(self.release.preprocessor)
        return await self._workers.isolated(locked.preprocessor, locked.requirements)

    async def _prove(self, proof: gate.Gate, lane: Lane, replica: Replica) -> None:
        try:
            load = await proof.prove_replica(replica)
        except (Misaligned, InferenceFailed) as error:
            lane.proven.pop(replica.endpoint, None)
            self._reject(str(error))
        except GatewayError as error:
            # Triton did not answer; the next look finds it again, or loaded anew.
            log.warning("alignment put off", model=self.model, reason=error.detail)
            self._proofs.pop(replica, None)
        else:
            lane.proven[replica.endpoint] = load
            self.proven, self.rejected = True, ""
            log.info("release aligned", model=self.model, release=self.name)
        self._cluster.changed.set()

    def _reject(self, reason: str) -> None:
        self.rejected = reason
        self.proven = False
        metrics.RELEASE_REJECTIONS.labels(self.model, self.name).inc()
        log.error("release rejected", model=self.model, release=self.name, reason=reason)
