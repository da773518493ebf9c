"""The compose stack, started as a user would start it, under a project name of the tests' own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from tests.support.stack import ROOT

PROJECT = "gateway-test"
#: A first start waits for health checks, on a machine that may be busy.
PATIENCE = 540
#: Ports of the host that are published: free ones.
PORTS = ("HTTP_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT", "LOCUST_PORT")
ADMIN_KEY = "the-admin-key-of-the-tests"


class Compose:
    """`docker compose` for one project; `settings` are what a user writes into .env."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self._folder = folder
        self._ports = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
        self.configure(**settings)

    def configure(self, **settings: str) -> None:
        """Write these settings, beside those of all tests, into the .env file."""
        given = self._ports | {"GATEWAY_ADMIN_KEY": ADMIN_KEY} | settings
        self._env = self._folder / ".env"
        self._env.write_text("".join(f"{name}={value}\n" for name, value in given.items()))

    @property
    def url(self) -> str:
        """Where the load balancer is published."""
        return f"http://127.0.0.1:{self._ports['HTTP_PORT']}"

    @property
    def prometheus(self) -> str:
        """Where Prometheus is published."""
        return f"http://127.0.0.1:{self._ports['PROMETHEUS_PORT']}"

    def __call__(self, *arguments: str, given: bytes | None = None) -> str:
        """Run `docker compose` with these arguments; returns what it printed on stdout."""
        command = self._command(*arguments)
        done = subprocess.run(
            command, cwd=ROOT, input=given, capture_output=True, timeout=PATIENCE, check=False
        )
        assert done.returncode == 0, f"{' '.join(arguments)}:\n{done.stderr.decode()[-4000:]}"
        return done.stdout.decode()

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Begin `docker compose` with these arguments."""
        return subprocess.Popen(
            self._command(*command),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _command(self, *arguments: str) -> list[str]:
        return ["docker", "compose", "-p", PROJECT, "--env-file", str(self._env), *arguments]

    def up(self, *arguments: str) -> None:
        """What all of the documentation asks a user to type."""
        self("up", "-d", "--wait", *arguments)

    def execute(self, service: str, *command: str, given: bytes | None = None) -> str:
        """Run a command in a service's first container."""
        return self("exec", "-T", service, *command, given=given)

    def containers(self, service: str = "") -> list[str]:
        """Return the ids of running and ended containers, of one service or of all."""
        return self("ps", "-aq", *([service] if service else [])).split()

    def inspect(self, service: str = "") -> list[dict[str, Any]]:
        """Return what the engine says of each container."""
        found: list[dict[str, Any]] = json.loads(docker("inspect", *self.containers(service)))
        return found

    def address(self, service: str) -> str:
        """Return the address of a service that has one container, on its one network."""
        (container,) = self.inspect(service)
        (network,) = container["NetworkSettings"]["Networks"].values()
        return str(network["IPAddress"])

    def client(self) -> httpx.Client:
        """A client of the load balancer."""
        return httpx.Client(base_url=self.url, timeout=60)

    def send(self, source: Path, names: Sequence[str], target: str) -> None:
        """Copy files into a volume as the gateway's user, in this order."""
        packed = subprocess.run(
            ["tar", "-C", source, "-c", *names], capture_output=True, check=True
        ).stdout
        self.execute("gateway", "tar", "--no-same-owner", "-x", "-C", target, given=packed)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Ask Prometheus; returns the samples."""
        answer = httpx.get(
            f"{self.prometheus}/api/v1/query", params={"query": expression}, timeout=30
        ).json()
        assert answer["status"] == "success", f"{expression}: {answer.get('error')}"
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found


def docker(*arguments: str) -> str:
    """Run `docker`; returns what it printed."""
    done = subprocess.run(
        ["docker", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback address that nobody listens on."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def engine_runs() -> bool:
    """Whether a Docker engine answers."""
    try:
        done = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        info = subprocess.run(["docker", "info"], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return done.returncode == info.returncode == 0


def demanded() -> bool:
    """Whether a machine without an engine fails the tests instead of skipping them."""
    return os.environ.get("GATEWAY_REQUIRE_ENGINE") == "1"


def eventually(check: Callable[[], Any], seconds: float = 90) -> Any:
    """Repeat a check until it is true and raises nothing; fail with its last error in time."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if found := check():
                return found
            problem: Exception | None = None
        except (AssertionError, httpx.HTTPError, KeyError, IndexError) as error:
            problem = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s") from problem
        time.sleep(0.3)
