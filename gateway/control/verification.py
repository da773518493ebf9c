"""Verification: a release receives no request on a replica until it has been verified there.

Checked in this order: the files on disk and the workers' environment match the lock; the
preprocessor reproduces the golden tensors; Triton's tensors fit; the golden results, or the model
version's own, come back through Triton, which also warms it up; and the files have not changed
meanwhile.

That Triton serves the locked weights is checked by the files' digests right before and after it
loads them, provided it reads the same file system; otherwise, and for a version that it already
served, by the golden results.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway_preprocessor import Prepared, TensorSpec
from gateway_preprocessor.goldens import Golden
from numpy.typing import NDArray

from gateway.deadline import Deadline
from gateway.errors import InferenceFailed
from gateway.preprocessing.workers import Preprocessing
from gateway.releases import alignment, goldens, lock
from gateway.releases.alignment import Misaligned, require
from gateway.releases.lock import LockedRelease
from gateway.releases.manifest import Release
from gateway.serving.packing import stack
from gateway.triton.health import FAILURES
from gateway.triton.model_control import ModelVersion
from gateway.triton.replica import Replica

#: Seconds for the inference of one golden case.
INFER_SECONDS = 60.0


class Verification:
    """Verifies one release. `folder` is the model's folder in the repository."""

    def __init__(
        self,
        folder: Path,
        name: str,
        release: Release,
        locked: LockedRelease,
        workers: Preprocessing,
    ) -> None:
        self._folder = folder
        self._name = name
        self._release = release
        self._locked = locked
        self._workers = workers
        self._goldens: list[Golden] = []
        self._prepared: list[Prepared] = []

    async def verify_workers(self) -> None:
        """Verify the workers, which depend on neither files nor Triton. Raises Misaligned."""
        identity = self._workers.identity
        require(lock.drift_of_worker(self._locked, identity, self._release.isolation))
        self._goldens = await asyncio.to_thread(
            goldens.of_version, self._folder, self._release.model_version, identity.goldens
        )
        prepared = await self._workers.preprocess([golden.payload for golden in self._goldens])
        require(alignment.tensors(self._goldens, prepared))
        self._prepared = [item for item in prepared if isinstance(item, Prepared)]

    async def verify_replica(self, replica: Replica) -> int:
        """Verify the release on one replica; return the load that was verified.

        Raises Misaligned, or GatewayError if Triton does not answer.
        """
        version = ModelVersion(self._folder.name, self._release.model_version)
        loaded = replica.ready[version]
        described = self._workers.identity.description
        if loaded.files != self._locked.model:
            raise Misaligned("Triton loaded the model from files other than the locked ones")
        require(alignment.specs(described, loaded.inputs, loaded.outputs, loaded.max_batch_size))
        answers: list[bytes | Exception] = []
        for item in self._prepared:
            outputs = await self._infer(replica, version, item)
            answers += await self._workers.postprocess(outputs, [item.context])
        require(alignment.results(self._goldens, answers, self._release.tolerance))
        await verify_files(self._folder, self._name, self._release, self._locked)
        return loaded.load

    async def ask_one(self, replica: Replica) -> None:
        """Infer one golden case on a replica, whatever the result. Raises GatewayError."""
        version = ModelVersion(self._folder.name, self._release.model_version)
        if self._prepared:
            await self._infer(replica, version, self._prepared[0])

    async def _infer(
        self, replica: Replica, version: ModelVersion, item: Prepared
    ) -> dict[str, NDArray[Any]]:
        described = self._workers.identity.description
        tensors = stack(described.tensors, [item.tensors]).tensors
        return await _infer(replica, version, tensors, described.outputs)


async def verify_files(folder: Path, name: str, release: Release, locked: LockedRelease) -> None:
    """Verify that a model version's files match the lock. Raises Misaligned."""
    require(await asyncio.to_thread(lock.drift, folder, name, release, locked))


async def _infer(
    replica: Replica,
    version: ModelVersion,
    tensors: Mapping[str, NDArray[Any]],
    outputs: Sequence[TensorSpec],
) -> dict[str, NDArray[Any]]:
    """Make a call on this replica; where the server fails it, as often as to know the model dead.

    It is then reloaded, and the new load is verified.
    """
    failed = False
    for left in reversed(range(FAILURES)):
        try:
            found = await replica.inference.infer(
                version, tensors, outputs, Deadline.after(INFER_SECONDS)
            )
        except InferenceFailed as error:
            failed = True
            if not left or not error.repeatable:
                replica.alarm.set()
                raise
        else:
            break
    if failed:
        replica.inference.health.refuted(version)
    return found
