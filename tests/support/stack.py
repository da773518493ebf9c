"""Starts the real stack (gateway and Triton, as a user would) and knows how to end it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import psutil

ROOT = Path(__file__).parents[2]
GATEWAY = str(Path(".venv/bin/gateway"))
START_SECONDS = 240
STOP_SECONDS = 60


class Stack:
    """One gateway with its embedded Triton, in a process group of its own."""

    def __init__(self, command: Sequence[str], run_dir: Path, /, **settings: str) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        self.run_dir = run_dir
        self.log = run_dir / "gateway.log"
        self.output = run_dir / "output.txt"
        given = {"port": "0", "run_dir": str(run_dir), "log_file": str(self.log)} | settings
        environment = {f"GATEWAY_{name.upper()}": value for name, value in given.items()}
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.url = ""

    def wait_ready(self) -> Stack:
        """Wait for the line that tells people the stack is ready."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            found = re.search(r"^ready at (\S+)$", self.output.read_text(), re.MULTILINE)
            if found:
                self.url = found[1]
                return self
            assert self.process.poll() is None, self.output.read_text()
            time.sleep(0.1)
        raise AssertionError(f"not ready in time:\n{self.output.read_text()}")

    @property
    def processes(self) -> list[psutil.Process]:
        """The stack's processes, Triton's and its backends' included."""
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    @property
    def commands(self) -> dict[psutil.Process, list[str]]:
        """The processes that run, with their command lines; those that end meanwhile are not."""
        found = {}
        for process in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                if line := process.cmdline():
                    found[process] = line
        return found

    @property
    def triton(self) -> psutil.Process:
        """The tritonserver process."""
        (server,) = (p for p, line in self.commands.items() if Path(line[0]).name == "tritonserver")
        return server

    @property
    def gateways(self) -> list[psutil.Process]:
        """The gateway processes that a supervising one has started; none where it is alone."""
        return [p for p, line in self.commands.items() if line[1:4] == ["-m", "gateway", "serve"]]

    @property
    def triton_endpoint(self) -> str:
        """Where its Triton listens for gRPC."""
        (port,) = re.findall(r"--grpc-port[= ](\d+)", " ".join(self.commands[self.triton]))
        return f"127.0.0.1:{port}"

    def workers(self, distribution: str) -> list[psutil.Process]:
        """The worker processes of a preprocessor that this gateway started."""
        module = "gateway_preprocessor.worker"
        return [p for p, line in self.commands.items() if {module, distribution} <= {*line}]

    @property
    def memory(self) -> int:
        """Resident bytes of all processes of the stack."""
        total = 0
        for process in self.commands:
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        return total

    def interrupt(self) -> None:
        """Press Ctrl-C: every process of the group gets SIGINT; nothing may be left behind."""
        assert self.process.poll() is None, f"it ended by itself:\n{self.output.read_text()}"
        processes = self.processes
        os.killpg(self.process.pid, signal.SIGINT)
        _, alive = psutil.wait_procs(processes, timeout=STOP_SECONDS)
        names = [process.name() for process in alive]
        for process in alive:
            process.kill()
        self.process.wait()
        assert not names, f"left behind: {names}"

    def client(self) -> httpx.Client:
        """A client for this stack."""
        return httpx.Client(base_url=self.url, timeout=60)


def serve(run_dir: Path, /, **settings: str) -> Stack:
    """Start `gateway serve` with these settings and wait until it is ready."""
    return Stack([GATEWAY, "serve"], run_dir, **settings).wait_ready()
