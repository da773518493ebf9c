"""The alignment gate: a release takes no request on a replica before it is proven there.

What is proven, in this order: the files on disk and the worker's environment are those of the
lock; the preprocessor reproduces the golden tensors; Triton's tensors fit; the golden results,
or the model version's own, come back through Triton, which warms it up, too; and the files have
not changed meanwhile.

That Triton serves the locked weights is proven by the files' digests just before and after the
gateway had it load them, as far as it reads the same file system; of a version that it served
already, and on other file systems, by the golden results.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway_preprocessor import Prepared
from gateway_preprocessor.goldens import Golden

from gateway.preprocessing.workers import Worker
from gateway.releases import alignment, goldens, lock
from gateway.releases.alignment import Misaligned, require
from gateway.releases.lock import LockedRelease
from gateway.releases.manifest import Release
from gateway.serving.packing import stack
from gateway.triton.replica import Replica

#: Seconds for the inference of one golden case.
INFER_SECONDS = 60.0


class Gate:
    """Proves one release. `folder` is the model's folder in the repository."""

    def __init__(
        self, folder: Path, name: str, release: Release, locked: LockedRelease, worker: Worker
    ) -> None:
        self._folder = folder
        self._name = name
        self._release = release
        self._locked = locked
        self._worker = worker
        self._goldens: list[Golden] = []
        self._prepared: list[Prepared] = []

    async def prove_worker(self) -> None:
        """Prove what depends neither on files nor on Triton. Raises Misaligned."""
        identity = self._worker.identity
        require(lock.drift_of_worker(self._locked, identity, self._release.isolation))
        self._goldens = await asyncio.to_thread(
            goldens.of_version, self._folder, self._release.model_version, identity.goldens
        )
        prepared = await self._worker.prepare([golden.payload for golden in self._goldens])
        require(alignment.tensors(self._goldens, prepared))
        self._prepared = [item for item in prepared if isinstance(item, Prepared)]

    async def prove_replica(self, replica: Replica) -> int:
        """Prove the release on one replica; returns the load that was proven.

        Raises Misaligned, or GatewayError where Triton does not answer.
        """
        version = (self._folder.name, self._release.model_version)
        served = replica.ready[version]
        described = self._worker.identity.description
        if served.files != self._locked.model:
            raise Misaligned("Triton loaded the model from other files than those locked")
        require(alignment.specs(described, served.inputs, served.outputs, served.max_batch_size))
        answers: list[bytes | Exception] = []
        for item in self._prepared:
            tensors = stack(described.tensors, [item.tensors]).tensors
            outputs = await replica.infer(version, tensors, described.outputs, INFER_SECONDS)
            answers += await self._worker.finish(outputs, [item.context])
        require(alignment.results(self._goldens, answers, self._release.tolerance))
        await prove_files(self._folder, self._name, self._release, self._locked)
        return served.load


async def prove_files(folder: Path, name: str, release: Release, locked: LockedRelease) -> None:
    """Prove that the files of a model version are those of the lock. Raises Misaligned."""
    require(await asyncio.to_thread(lock.drift, folder, name, release, locked))
