"""Runs a preprocessor in threads of the gateway process, off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gateway_preprocessor import Payload, Prepared, Runner
from gateway_preprocessor.wire import Identity
from numpy.typing import NDArray

from gateway.preprocessing.losses import Wait
from gateway.preprocessing.status import WorkerState, WorkerStatus


class InlinePreprocessing:
    """Pre- and postprocessing of one release, in a few threads of its own."""

    status = WorkerStatus(WorkerState.READY)
    refused = False
    pids: Sequence[int] = ()
    dead: Mapping[str, str] = {}

    def __init__(self, identity: Identity, runner: Runner, threads: int) -> None:
        self.identity = identity
        self._runner = runner
        self._pool = ThreadPoolExecutor(threads, "preprocess")

    async def preprocess(
        self, payloads: Sequence[Payload], waits: Sequence[Wait] = ()
    ) -> list[Prepared | Exception]:
        """Preprocess; `result[i]` answers `payloads[i]`, an exception where that one failed.

        A thread cannot be stopped: whether anybody `waits` makes no difference.
        """
        del waits
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._runner.prepare, payloads)

    async def postprocess(
        self,
        outputs: Mapping[str, NDArray[Any]],
        contexts: Sequence[Any],
        waits: Sequence[Wait] = (),
    ) -> list[bytes | Exception]:
        """Postprocess (rows, …); each result is JSON text, or an exception where it failed."""
        del waits
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._runner.finish, outputs, contexts)

    async def close(self) -> None:
        """End the threads; one that hangs ends with the process."""
        self._pool.shutdown(wait=False, cancel_futures=True)
