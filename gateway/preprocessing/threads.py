"""Runs a preprocessor in threads of the gateway process, off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gateway_preprocessor import Payload, Prepared, Runner, describe
from numpy.typing import NDArray


class InlineWorker:
    """Pre- and postprocessing of one release, in a thread pool that all releases share.

    `distribution` names the package and version that does it, as `name==version`.
    """

    def __init__(self, distribution: str, runner: Runner, pool: ThreadPoolExecutor) -> None:
        self.distribution = distribution
        self.description = describe(type(runner.preprocessor))
        self._runner = runner
        self._pool = pool

    async def prepare(self, payloads: Sequence[Payload]) -> list[Prepared | Exception]:
        """Preprocess; `result[i]` answers `payloads[i]`, an exception where that one failed."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._runner.prepare, payloads)

    async def finish(
        self, outputs: Mapping[str, NDArray[Any]], contexts: Sequence[Any]
    ) -> list[bytes | Exception]:
        """Postprocess (rows, …); each result is JSON text, or an exception where it failed."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._runner.finish, outputs, contexts)
