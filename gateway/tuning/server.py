"""The gateway that serves the candidates: a process of its own, as in production."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

from gateway.processes import end_with_parent, variables
from gateway.settings import Settings
from gateway.tuning.candidates import TuningError

#: Seconds until every candidate must be aligned; each instance is loaded by then.
START_SECONDS = 600
STOP_SECONDS = 60
_READY = re.compile(rb"^ready at (\S+)$", re.MULTILINE)


class Served(NamedTuple):
    """A running gateway: where it listens, and its process."""

    url: str
    process: psutil.Process


@asynccontextmanager
async def serving(settings: Settings, repository: Path, run_dir: Path) -> AsyncIterator[Served]:
    """Run a gateway with an embedded Triton for the length of the block.

    Its settings are `settings`, but for the folders, and free ports of its own. Raises
    TuningError with what the gateway said where it does not start.
    """
    own = settings.model_copy(
        update={
            **{f"triton_{kind}_port": 0 for kind in ("grpc", "http", "metrics")},
            "repository": repository,
            "run_dir": run_dir,
            "host": "127.0.0.1",
            "port": 0,
            "processes": 1,
            "models": (),
            "triton": (),
            "log_file": run_dir / "gateway.log",
        }
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "serve"),
        env=os.environ | variables(own),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C ends it through us
        preexec_fn=end_with_parent,
    )
    try:
        async with asyncio.timeout(START_SECONDS):
            url = await _ready(process)
        draining = asyncio.create_task(_drain(process))
        try:
            yield Served(url, psutil.Process(process.pid))
        finally:
            draining.cancel()
    except TimeoutError:
        raise TuningError(f"the candidates were not ready in {START_SECONDS} s") from None
    finally:
        await _stop(process)


async def _ready(process: asyncio.subprocess.Process) -> str:
    assert process.stdout  # noqa: S101 - asked for above
    said = b""
    while part := await process.stdout.readline():
        said += part
        if found := _READY.search(said):
            return found[1].decode()
        if part.startswith(b"  rejected: "):
            break  # it would wait for ever
    raise TuningError(f"the candidates cannot be served:\n{said.decode(errors='replace').strip()}")


async def _drain(process: asyncio.subprocess.Process) -> None:
    """Read away what else is printed: a full pipe would halt the gateway."""
    assert process.stdout  # noqa: S101 - asked for above
    while await process.stdout.read(1 << 16):
        pass


async def _stop(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
