"""Several gateways on one port, for machines with more cores than one event loop can fill.

The parent runs the embedded Triton and supervises the gateways, which share port, Triton, workers
and metrics; the kernel spreads connections over them.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

import structlog
from pydantic import SecretStr

from gateway.app import embedded
from gateway.settings import Settings
from gateway.system import limits
from gateway.system.supervision import Backoff, ChildState, ChildStatus, Supervisor
from gateway.telemetry import multiprocess
from gateway.triton.embedded import EmbeddedTriton

log = structlog.get_logger(__name__)

BACKOFF = Backoff(first=0.5, longest=10.0, stable=10.0)
#: Give up on a gateway that fails to start this many times in a row, unless it was ready before.
ATTEMPTS = 3
#: Seconds beyond `drain_seconds` after which a gateway is killed.
GRACE = 10.0
#: File descriptor of the pipe through which a gateway reports readiness. Not a setting.
READY_PIPE = "_GATEWAY_READY_PIPE"
PR_SET_PDEATHSIG = 1


class StartFailed(RuntimeError):
    """A gateway failed to start, repeatedly."""


class Processes:
    """The parent of several gateways. `say` prints progress for people."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._say = say
        self._triton: EmbeddedTriton | None = None
        self._metrics = settings.run_dir / "metrics"
        self._children: list[Supervisor] = []
        self._ready: list[asyncio.Future[None]] = []
        # Bound but never listening: reserves the port without accepting connections.
        self._reserved = socket.socket(
            socket.AF_INET6 if ":" in settings.host else socket.AF_INET, socket.SOCK_STREAM
        )

    async def start(self) -> None:
        """Start Triton and the gateways; raises whatever prevents that."""
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
        shutil.rmtree(self._metrics, ignore_errors=True)
        shared = {
            "port": self._reserved.getsockname()[1],
            "triton": endpoints,
            "max_calls": limits.most_calls(settings),
        }
        for index in range(settings.processes):
            self._start(index, settings.model_copy(update=shared))

    def _start(self, index: int, settings: Settings) -> None:
        """Start one gateway; only the first one prints its progress."""
        own: dict[str, object] = {}
        if index:
            # Only one may reload models, or each would unload what another has just loaded.
            own = {"log_stream": "stderr", "reload_failing_models": False}
        elif self._triton:
            own = {"reload_failing_models": True}
        environment = os.environ | variables(settings.model_copy(update=own))
        child = Supervisor(
            f"gateway {index}",
            partial(self._launch, index, environment),
            BACKOFF,
            ended=partial(self._ended, index),
            attempts=ATTEMPTS,
        )
        self._children.append(child)
        self._ready.append(asyncio.get_running_loop().create_future())
        child.supervise()

    async def ready(self) -> None:
        """Wait until every gateway is ready. Raises StartFailed."""
        await asyncio.gather(*self._ready)

    def look_now(self) -> None:
        """Pass SIGHUP on to the gateways."""
        for child in self._children:
            if child.status.pid:
                with suppress(ProcessLookupError):
                    os.kill(child.status.pid, signal.SIGHUP)

    async def stop(self) -> None:
        """Let all gateways finish their requests, then stop Triton. Leaves no process."""
        grace = self._settings.drain_seconds + GRACE
        await asyncio.gather(*(child.stop(grace) for child in self._children))
        if self._triton:
            await self._triton.stop()
        self._reserved.close()

    async def _launch(self, index: int, environment: Mapping[str, str]) -> Process:
        files = await asyncio.to_thread(multiprocess.reserve, self._metrics, index)
        reader, writer = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "gateway", "serve"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL if index else None,
                stderr=sys.stdout if index and self._settings.log_stream == "stdout" else None,
                env={**environment, **files, READY_PIPE: str(writer)},
                pass_fds=(writer,),
                preexec_fn=end_with_parent,
            )
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        asyncio.get_running_loop().add_reader(reader, self._told, index, reader)
        return process

    def _told(self, index: int, reader: int) -> None:
        """Read a gateway's pipe: one byte means ready, end of file that it ended."""
        asyncio.get_running_loop().remove_reader(reader)
        told = os.read(reader, 1)
        os.close(reader)
        if told and not self._ready[index].done():
            self._children[index].attempts = None
            self._ready[index].set_result(None)

    async def _ended(self, index: int, process: Process | None, status: ChildStatus) -> None:
        if process:
            multiprocess.forget(self._metrics, index)
        if status.state is ChildState.STOPPED:
            return
        log.error("gateway ended", index=index, state=status.state, reason=status.reason)
        if status.state is ChildState.FAILED:
            self._ready[index].set_exception(StartFailed(status.reason))


def ready_pipe() -> int | None:
    """Return the pipe through which this gateway reports readiness, if it has a parent."""
    number = os.environ.pop(READY_PIPE, None)
    return int(number) if number else None


def end_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when its parent dies."""
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
