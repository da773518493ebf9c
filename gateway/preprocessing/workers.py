"""Runs each release's preprocessor: in workers with its locked environment, or in threads."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from gateway_preprocessor import Payload, Prepared
from gateway_preprocessor.wire import Identity
from numpy.typing import NDArray

from gateway.preprocessing.environments import Environments
from gateway.preprocessing.inline import InlinePreprocessing
from gateway.preprocessing.installed import PreprocessorUnavailable, load
from gateway.preprocessing.losses import Wait
from gateway.preprocessing.pool import WorkerPool
from gateway.preprocessing.status import WorkerStatus
from gateway.preprocessing.worker_processes import PoolOptions
from gateway.settings import Settings
from gateway.system import limits

#: The longest path of a Unix socket that Linux takes (`unix(7)`), and how long a worker's name is.
LONGEST_SOCKET = 107
SOCKET = "99.sock"


class Preprocessing(Protocol):
    """Pre- and postprocessing of one release, wherever it runs."""

    @property
    def identity(self) -> Identity:
        """Which package and version runs."""

    @property
    def status(self) -> WorkerStatus:
        """Its present state."""

    @property
    def refused(self) -> bool:
        """Whether its workers differ from the verified ones."""

    @property
    def pids(self) -> Sequence[int]:
        """Those of its processes that this gateway runs."""

    @property
    def dead(self) -> Mapping[str, str]:
        """Its dead parts, with the reason."""

    async def preprocess(
        self, payloads: Sequence[Payload], waits: Sequence[Wait] = ()
    ) -> list[Prepared | Exception]:
        """Preprocess; an entry is an exception where that payload failed.

        `waits` has what the request of each payload waits for: work that nobody waits for any more
        is not repeated, and a worker is not left to it. An exception may then be a Suspect, whose
        outcome comes later. Raises ReleaseNotReady.
        """

    async def postprocess(
        self,
        outputs: Mapping[str, NDArray[Any]],
        contexts: Sequence[Any],
        waits: Sequence[Wait] = (),
    ) -> list[bytes | Exception]:
        """Postprocess a call's outputs to JSON text; an exception where that row failed.

        `waits`, Suspects and ReleaseNotReady as in `preprocess`.
        """

    async def close(self) -> None:
        """Release its resources."""


class Workers:
    """Makes the preprocessing of each release; releases with equal requirements share it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._environments = Environments(
            settings.environments,
            settings.wheelhouse,
            offline=settings.offline,
            prebuilt=settings.prebuilt_environments,
        )
        self._pools: dict[Path, WorkerPool] = {}  # by the folder of their sockets
        self._starts: dict[Path, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._uses: Counter[Preprocessing] = Counter()

    async def inline(self, requirement: str) -> Preprocessing:
        """Run an installed preprocessor in this process. Raises PreprocessorUnavailable."""
        identity, runner = await asyncio.to_thread(load, requirement)
        made = InlinePreprocessing(identity, runner, self._settings.preprocess_threads)
        self._uses[made] += 1
        return made

    async def isolated(self, preprocessor: str, requirements: Sequence[str]) -> Preprocessing:
        """Run a preprocessor (`name==version`) in the environment with these requirements.

        Gateways of one host with the same run_dir share the processes. Raises
        EnvironmentFailure, PreprocessorUnavailable.
        """
        settings = self._settings
        python = await self._environments.python(requirements)
        distribution = preprocessor.partition("==")[0]
        folder = _sockets(settings.run_dir, python, distribution)
        options = PoolOptions(
            python=python,
            distribution=distribution,
            folder=folder,
            size=limits.workers(settings),
            start_seconds=settings.worker_start_seconds,
            call_seconds=settings.worker_call_seconds,
            growth_bytes=settings.worker_growth_bytes,
        )
        async with self._starts[folder]:
            if (pool := self._pools.get(folder)) is None:
                pool = WorkerPool(options)
                await pool.start()
                self._pools[folder] = pool
            self._uses[pool] += 1
            return pool

    async def release(self, preprocessing: Preprocessing) -> None:
        """Close a preprocessing that was made here, once no other release uses it."""
        self._uses[preprocessing] -= 1
        if self._uses[preprocessing] > 0:
            return
        del self._uses[preprocessing]
        self._pools = {
            folder: pool for folder, pool in self._pools.items() if pool is not preprocessing
        }
        await preprocessing.close()


def _sockets(run_dir: Path, python: Path, distribution: str) -> Path:
    """Return the folder of a pool's sockets: below the working folder, if it is short enough.

    Otherwise it is below the folder for temporary files. Raises PreprocessorUnavailable.
    """
    key = "\0".join((str(run_dir.resolve()), str(python), distribution))
    name = hashlib.sha256(key.encode()).hexdigest()[:16]
    temporary = Path(tempfile.gettempdir()) / f"gateway-{os.getuid()}"
    folders = [run_dir.resolve() / "workers" / name, temporary / name]
    for folder in folders:
        if len(os.fsencode(folder / SOCKET)) <= LONGEST_SOCKET:
            return folder
    raise PreprocessorUnavailable(
        f"paths of sockets may have {LONGEST_SOCKET} bytes, which {folders[0] / SOCKET} and"
        f" {folders[1] / SOCKET} exceed: choose a shorter run_dir or TMPDIR"
    )
