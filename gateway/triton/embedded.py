"""The embedded Triton: the real tritonserver from PyPI, run and supervised by the gateway.

For development, tests and small installs. A start counts only when the canary, a model whose answer
is known, was answered right: some faults (an environment with the wrong numpy) make Triton answer
empty tensors without an error. A process that ends on its own is started again, ever more slowly.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import IO

from gateway.triton import canary, launcher
from gateway.triton.launcher import EmbeddedOptions
from gateway.triton.layout import EmbeddedTritonError, Installation

__all__ = [
    "EmbeddedOptions",
    "EmbeddedState",
    "EmbeddedStatus",
    "EmbeddedTriton",
    "EmbeddedTritonError",
]

# Below the ephemeral ports: a client that dials a dead server's ephemeral port can be given that
# very port as its own, connect to itself, and keep the restarted server from binding it.
PORTS = range(20_000, 32_000)
START_TIMEOUT_S = 120.0
STOP_GRACE_S = launcher.EXIT_TIMEOUT_S + 5.0
FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 30.0
STABLE_AFTER_S = 60.0

logger = logging.getLogger(__name__)


class EmbeddedState(StrEnum):
    """What the supervised process is doing."""

    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class EmbeddedStatus:
    """What the supervised process is doing; `restarts` counts every attempt after the start."""

    state: EmbeddedState
    pid: int | None
    restarts: int
    reason: str


class EmbeddedTriton:
    """One supervised tritonserver, in a session of its own, bound to the loopback only."""

    def __init__(
        self, options: EmbeddedOptions, on_ready: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        self._options = options
        self._on_ready = on_ready
        self._ports = _choose_ports(options)
        self._status = EmbeddedStatus(EmbeddedState.STOPPED, None, 0, "not started")
        self._lock: IO[bytes] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def status(self) -> EmbeddedStatus:
        """The present state, for /readyz and the console."""
        return self._status

    @property
    def grpc_endpoint(self) -> str:
        """`127.0.0.1:port`, the same over restarts."""
        return f"127.0.0.1:{self._ports[0]}"

    @property
    def http_endpoint(self) -> str:
        """`127.0.0.1:port`, the same over restarts."""
        return f"127.0.0.1:{self._ports[1]}"

    @property
    def metrics_endpoint(self) -> str:
        """`127.0.0.1:port`, the same over restarts."""
        return f"127.0.0.1:{self._ports[2]}"

    async def start(self) -> None:
        """Return when Triton is live, its canary was right and `on_ready` is done.

        Raises EmbeddedTritonError with the reason and the log's tail, and leaves nothing running.
        """
        self._status = EmbeddedStatus(EmbeddedState.STARTING, None, 0, "")
        try:
            self._lock = await asyncio.to_thread(launcher.lock, self._options)
            installation = await Installation.find(self._options.python)
            process = await self._launch(installation)
            if self._on_ready is not None:
                await self._on_ready()
        except BaseException as error:
            await self._release(str(error) or type(error).__name__)
            raise
        self._supervisor = asyncio.create_task(self._supervise(installation, process))

    async def stop(self) -> None:
        """End Triton: in-flight requests finish, then whatever is left of its group is killed."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
            self._supervisor = None
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), STOP_GRACE_S)
        await self._release("stopped")
        logger.info("the embedded Triton has stopped")

    async def _launch(self, installation: Installation) -> asyncio.subprocess.Process:
        """Start one process and prove that it serves."""
        options = self._options
        await asyncio.to_thread(launcher.remove_shared_memory, options)
        log = await asyncio.to_thread(launcher.lay_out, options, installation)
        environment = launcher.environment(options, installation)
        try:
            await installation.check(environment)
            process = await asyncio.create_subprocess_exec(
                *launcher.command(options, installation, self._ports),
                cwd=options.run_dir,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in a terminal reaches the gateway alone
            )
        finally:
            log.close()
        self._process = process
        try:
            await self._prove(process)
        except EmbeddedTritonError as error:
            await self._clear(process)
            tail = await asyncio.to_thread(launcher.log_tail, options)
            raise EmbeddedTritonError(f"{error}\n{tail}") from error
        except BaseException:
            await self._clear(process)
            raise
        self._status = EmbeddedStatus(EmbeddedState.RUNNING, process.pid, self._status.restarts, "")
        logger.info(
            "the embedded Triton is ready", extra={"pid": process.pid, "ports": self._ports}
        )
        return process

    async def _prove(self, process: asyncio.subprocess.Process) -> None:
        """Wait for readiness and the canary's answer, whichever fails or ends first."""
        proof = asyncio.create_task(canary.ask(self._options, self.grpc_endpoint))
        exited = asyncio.create_task(process.wait())
        try:
            done, _ = await asyncio.wait(
                {proof, exited}, timeout=START_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED
            )
            if exited in done:
                raise EmbeddedTritonError(f"tritonserver {_describe(exited.result())} at its start")
            if not done:
                raise EmbeddedTritonError(f"tritonserver was not ready in {START_TIMEOUT_S:.0f} s")
            proof.result()
        finally:
            proof.cancel()
            exited.cancel()
            await asyncio.gather(proof, exited, return_exceptions=True)

    async def _supervise(
        self, installation: Installation, process: asyncio.subprocess.Process
    ) -> None:
        loop = asyncio.get_running_loop()
        delay = FIRST_DELAY_S
        while True:
            ready_at = loop.time()
            reason = f"tritonserver {_describe(await process.wait())}"
            if loop.time() - ready_at >= STABLE_AFTER_S:
                delay = FIRST_DELAY_S
            while True:
                self._note_down(reason, delay)
                await self._clear(process)
                await asyncio.sleep(delay)
                delay = min(2 * delay, LONGEST_DELAY_S)
                try:
                    process = await self._launch(installation)
                    break
                except Exception as error:  # supervision outlives every failed start
                    logger.exception("the embedded Triton could not be started")
                    reason = str(error) or type(error).__name__
            try:
                if self._on_ready is not None:
                    await self._on_ready()
            except Exception:  # what the gateway does then must not end the supervision
                logger.exception("the gateway could not take up the restarted embedded Triton")

    def _note_down(self, reason: str, delay: float) -> None:
        restarts = self._status.restarts + 1
        self._status = EmbeddedStatus(EmbeddedState.RESTARTING, None, restarts, reason)
        logger.error(
            "the embedded Triton is down and will be started again",
            extra={"reason": reason, "delay_s": delay, "restarts": restarts},
        )

    async def _clear(self, process: asyncio.subprocess.Process) -> None:
        """Kill what is left of the process group and remove its shared memory."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        await asyncio.to_thread(launcher.remove_shared_memory, self._options)

    async def _release(self, reason: str) -> None:
        if self._process is not None:
            await self._clear(self._process)
            self._process = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        self._status = EmbeddedStatus(EmbeddedState.STOPPED, None, self._status.restarts, reason)


def _choose_ports(options: EmbeddedOptions) -> tuple[int, int, int]:
    """The ports for gRPC, HTTP and metrics: as asked, or free ones."""
    wanted = (options.grpc_port, options.http_port, options.metrics_port)
    taken = set(wanted)
    ports: list[int] = []
    for port in wanted:
        chosen = port
        while not chosen:
            candidate = PORTS[secrets.randbelow(len(PORTS))]
            with socket.socket() as probe, contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", candidate))
                chosen = 0 if candidate in taken else candidate
        taken.add(chosen)
        ports.append(chosen)
    return ports[0], ports[1], ports[2]


def _describe(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
