"""A server under test: a process group of its own, whose output is kept for when it fails."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

import psutil

ROOT = Path(__file__).parents[2]
START_SECONDS = 240
STOP_SECONDS = 60
POLL = 0.05
#: Which group a process counts to: by what its command line has in it, the first that fits.
GROUPS = {
    "tokenisers": "_tokeni",
    "instances": "triton_python_backend_stub",
    "triton": "tritonserver",
    "workers": "gateway_preprocessor.worker",
}


class ServiceError(RuntimeError):
    """The server did not start, or ended by itself; the text ends with what it printed."""


class Service:
    """One server with all its processes.

    `named` are the groups of those that GROUPS does not name: the first process, its children.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        output: Path,
        variables: Mapping[str, str] = MappingProxyType({}),
        named: tuple[str, str] = ("front", "back"),
    ) -> None:
        self._command = command
        self._output = output
        self._variables = variables
        self._named = named

    def __enter__(self) -> Self:
        """Start it; `wait` tells when it is there."""
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603
                self._command,
                cwd=ROOT,
                env={**os.environ, **self._variables},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it and what it has started; what does not end by itself is killed."""
        if self._process.poll() is not None:
            return
        root = psutil.Process(self._process.pid)
        processes = [root, *root.children(recursive=True)]
        self._process.send_signal(signal.SIGINT)
        _, alive = psutil.wait_procs(processes, timeout=STOP_SECONDS)
        for process in alive:
            process.kill()
        self._process.wait()

    @property
    def printed(self) -> str:
        """What it has printed so far."""
        return self._output.read_text(errors="replace")

    def wait(self, ready: Callable[[], bool]) -> None:
        """Wait until it is ready. Raises ServiceError."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if ready():
                return
            if self._process.poll() is not None:
                raise ServiceError(f"the server ended at its start:\n{self.printed}")
            time.sleep(POLL)
        raise ServiceError(f"the server was not ready in {START_SECONDS} s:\n{self.printed}")

    def processes(self) -> dict[str, list[psutil.Process]]:
        """Return its processes of now by group."""
        root = psutil.Process(self._process.pid)
        found = defaultdict[str, list[psutil.Process]](list)
        for process in (root, *root.children(recursive=True)):
            try:
                line = " ".join(process.cmdline())
            except psutil.NoSuchProcess:
                continue
            own = self._named[process.pid != root.pid]
            found[next((name for name, part in GROUPS.items() if part in line), own)].append(
                process
            )
        return dict(found)

    def groups(self) -> dict[str, list[int]]:
        """Return the process ids by group."""
        return {name: [each.pid for each in group] for name, group in self.processes().items()}


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
