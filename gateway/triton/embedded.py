"""The embedded Triton: the real tritonserver from PyPI, run and supervised by the gateway.

For development, tests and small installations. A start succeeds only once the canary, a model with
a known answer, has been answered correctly: some faults (an environment with the wrong numpy) make
Triton answer empty tensors without an error.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
from asyncio.subprocess import Process
from contextlib import suppress
from typing import IO

import structlog

from gateway.system.supervision import Backoff, ChildState, ChildStatus, Supervisor, described
from gateway.telemetry import metrics
from gateway.triton import canary, launcher
from gateway.triton.hang import until_hung
from gateway.triton.launcher import EmbeddedOptions
from gateway.triton.layout import EmbeddedTritonError, Installation

# Below the ephemeral ports: a client that connects to a dead server's ephemeral port may get that
# very port itself, connect to itself, and keep the restarted server from binding it.
PORTS = range(20_000, 32_000)
START_TIMEOUT_S = 120.0
STOP_GRACE_S = launcher.EXIT_TIMEOUT_S + 5.0
BACKOFF = Backoff(first=0.5, longest=30.0, stable=60.0)

log = structlog.get_logger(__name__)


class EmbeddedTriton:
    """One supervised tritonserver, in a session of its own, bound to loopback only."""

    def __init__(self, options: EmbeddedOptions) -> None:
        self._options = options
        self._ports = _choose_ports(options)
        self._lock: IO[bytes] | None = None
        self._installation: Installation | None = None
        self._guard: asyncio.Task[None] | None = None
        self._supervisor = Supervisor("tritonserver", self._launch, BACKOFF, ended=self._ended)

    @property
    def status(self) -> ChildStatus:
        """What the process is doing, for /readyz."""
        return self._supervisor.status

    @property
    def grpc_endpoint(self) -> str:
        """`127.0.0.1:port`, the same across restarts."""
        return f"127.0.0.1:{self._ports[0]}"

    @property
    def http_endpoint(self) -> str:
        """`127.0.0.1:port`, the same across restarts."""
        return f"127.0.0.1:{self._ports[1]}"

    @property
    def metrics_endpoint(self) -> str:
        """`127.0.0.1:port`, the same across restarts."""
        return f"127.0.0.1:{self._ports[2]}"

    async def start(self) -> None:
        """Return once Triton runs and has answered the canary correctly.

        Raises EmbeddedTritonError with the reason and the end of the log; leaves nothing running.
        """
        try:
            await self._supervisor.start()
        except BaseException:
            self._release()
            raise

    async def stop(self) -> None:
        """Stop Triton: requests in flight finish, then the rest of its process group is killed."""
        self._unguard()
        await self._supervisor.stop(STOP_GRACE_S)
        self._release()
        log.info("the embedded Triton has stopped")

    async def _launch(self) -> Process:
        """Start a process and check that it serves correctly."""
        options = self._options
        if self._lock is None:
            self._lock = await asyncio.to_thread(launcher.lock, options)
        if self._installation is None:
            self._installation = await Installation.find(options.python)
        installation = self._installation
        await asyncio.to_thread(launcher.remove_shared_memory, options)
        environment = launcher.environment(options, installation)
        with await asyncio.to_thread(launcher.lay_out, options, installation) as output:
            await installation.check(environment)
            process = await asyncio.create_subprocess_exec(
                *launcher.command(options, installation, self._ports),
                cwd=options.run_dir,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C in a terminal reaches the gateway alone
            )
        try:
            await self._prove(process)
        except EmbeddedTritonError as error:
            await self._clear(process)
            tail = await asyncio.to_thread(launcher.log_tail, options)
            raise EmbeddedTritonError(f"{error}\n{tail}") from error
        except BaseException:
            await self._clear(process)
            raise
        log.info("the embedded Triton is ready", pid=process.pid, ports=self._ports)
        self._guard = asyncio.create_task(self._kill_if_hung(process))
        return process

    async def _kill_if_hung(self, process: Process) -> None:
        """Kill the process once it hangs; the supervisor then starts another one."""
        await until_hung(self.grpc_endpoint)
        log.error("the embedded Triton hangs: killing it", pid=process.pid)
        with suppress(ProcessLookupError):
            process.kill()

    def _unguard(self) -> None:
        if self._guard:
            self._guard.cancel()
            self._guard = None

    async def _prove(self, process: Process) -> None:
        """Wait until the canary is answered, the process ends or the time is up."""
        proof = asyncio.create_task(canary.ask(self._options, self.grpc_endpoint))
        exited = asyncio.create_task(process.wait())
        try:
            done, _ = await asyncio.wait(
                {proof, exited}, timeout=START_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED
            )
            if exited in done:
                raise EmbeddedTritonError(
                    f"tritonserver {described(exited.result())} during its start"
                )
            if not done:
                raise EmbeddedTritonError(f"tritonserver was not ready in {START_TIMEOUT_S:.0f} s")
            proof.result()
        finally:
            proof.cancel()
            exited.cancel()
            await asyncio.gather(proof, exited, return_exceptions=True)

    async def _ended(self, process: Process | None, status: ChildStatus) -> None:
        """Clean up after the process."""
        self._unguard()
        if process:
            await self._clear(process)
        if status.state is ChildState.RESTARTING:
            metrics.TRITON_RESTARTS.set(status.restarts)
            log.error("the embedded Triton is down", reason=status.reason, restarts=status.restarts)

    async def _clear(self, process: Process) -> None:
        """Kill the rest of the process group and remove its shared memory."""
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        await asyncio.to_thread(launcher.remove_shared_memory, self._options)

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _choose_ports(options: EmbeddedOptions) -> tuple[int, int, int]:
    """Return the ports for gRPC, HTTP and metrics: as requested, or free ones."""
    wanted = (options.grpc_port, options.http_port, options.metrics_port)
    taken = set(wanted)
    ports: list[int] = []
    for port in wanted:
        chosen = port
        while not chosen:
            candidate = PORTS[secrets.randbelow(len(PORTS))]
            with socket.socket() as probe, suppress(OSError):
                probe.bind(("127.0.0.1", candidate))
                chosen = 0 if candidate in taken else candidate
        taken.add(chosen)
        ports.append(chosen)
    return ports[0], ports[1], ports[2]
