"""Several gateways on one port, for machines with more cores than one event loop can fill.

A supervisor runs the embedded Triton and the gateways, which share port, Triton, workers and
metrics; the kernel spreads connections over them. One that dies is started again.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress

import structlog
from prometheus_client.multiprocess import mark_process_dead
from pydantic import SecretStr

from gateway.app import embedded
from gateway.settings import Settings
from gateway.system import limits
from gateway.triton.embedded import EmbeddedTriton

log = structlog.get_logger(__name__)

#: Seconds before a gateway that died is started again, at first and at most.
FIRST_DELAY, LONGEST_DELAY, STABLE = 0.5, 10.0, 10.0
#: Seconds that a gateway gets beyond `drain_seconds` before it is killed.
GRACE = 10.0
READY = "ready at "
#: What has prometheus_client keep the values of several processes in one folder.
METRICS = "PROMETHEUS_MULTIPROC_DIR"
PR_SET_PDEATHSIG = 1


class Processes:
    """The supervisor. `say` tells people what the first gateway says."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._say = say
        self._triton: EmbeddedTriton | None = None
        self._running: set[asyncio.subprocess.Process] = set()
        self._ready = [asyncio.Event() for _ in range(settings.processes)]
        self._keepers: list[asyncio.Task[None]] = []
        # Bound but never listening: the port stays ours, and gets no connections here.
        self._reserved = socket.socket(
            socket.AF_INET6 if ":" in settings.host else socket.AF_INET, socket.SOCK_STREAM
        )

    async def start(self) -> None:
        """Start Triton and the gateways; raises what keeps them from starting."""
        settings = self._settings
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            self._reserved.bind((settings.host, settings.port))
        except OSError as error:
            place = f"host {settings.host}, port {settings.port}"
            raise OSError(f"{place}: {error.strerror or error}") from None
        endpoints = settings.triton
        if not endpoints:
            self._say("starting Triton")
            self._triton = embedded(settings)
            await self._triton.start()
            endpoints = (self._triton.grpc_endpoint,)
        folder = settings.run_dir / "metrics"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        common = settings.model_copy(
            update={
                "port": self._reserved.getsockname()[1],
                "triton": endpoints,
                "max_calls": limits.most_calls(settings),
                # Their output comes through here; what they log goes where this process logs.
                "log_stream": "stderr",
                "processes": 1,
                "shares_port": True,
            }
        )
        environment = os.environ | {METRICS: str(folder)}
        for index in range(settings.processes):
            # One of them mends models, or each would unload what another has just loaded.
            mends = {
                "mends_models": index == 0 and (settings.mends_models or self._triton is not None)
            }
            given = environment | variables(common.model_copy(update=mends))
            self._keepers.append(asyncio.create_task(self._keep(index, given)))

    async def ready(self) -> None:
        """Wait until every gateway is ready."""
        for ready in self._ready:
            await ready.wait()

    async def stop(self) -> None:
        """Let all gateways finish what they have, then stop Triton. Leaves no process."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for process in self._running:
            with suppress(ProcessLookupError):
                process.terminate()
        try:
            async with asyncio.timeout(self._settings.drain_seconds + GRACE):
                await asyncio.gather(*(process.wait() for process in self._running))
        except TimeoutError:
            log.warning("gateways were killed")
            for process in self._running:
                with suppress(ProcessLookupError):
                    process.kill()
        if self._triton:
            await self._triton.stop()
        self._reserved.close()

    async def _keep(self, index: int, environment: dict[str, str]) -> None:
        """Run one gateway for ever; what the first one says, people hear."""
        delay = FIRST_DELAY
        while True:
            started = time.monotonic()
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "gateway", "serve"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=sys.stdout if self._settings.log_stream == "stdout" else None,
                env=environment,
                preexec_fn=end_with_parent,
            )
            self._running.add(process)
            assert process.stdout  # noqa: S101 - a pipe
            async for line in process.stdout:
                text = line.decode(errors="replace").rstrip()
                if text.startswith(READY):
                    self._ready[index].set()
                if index == 0:
                    self._say(text)
            code = await process.wait()
            self._running.discard(process)
            mark_process_dead(process.pid, environment[METRICS])  # type: ignore[no-untyped-call]
            log.error("gateway ended", index=index, code=code)
            delay = FIRST_DELAY if time.monotonic() - started > STABLE else delay * 2
            await asyncio.sleep(min(delay, LONGEST_DELAY))


def end_with_parent() -> None:
    """Have the kernel end this process, draining, when the supervisor is killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def variables(settings: Settings) -> dict[str, str]:
    """Return settings as environment variables."""
    found = {}
    for name, value in settings:
        if isinstance(value, SecretStr):
            text = value.get_secret_value()
        elif isinstance(value, tuple):
            text = ",".join(value)
        else:
            text = str(value)
        if value is not None:
            found[f"GATEWAY_{name.upper()}"] = text
    return found
