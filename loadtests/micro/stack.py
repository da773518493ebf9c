"""The gateway under test: `gateway serve` with its embedded Triton, on free ports, by itself."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

import httpx
import msgspec
import psutil
from prometheus_client.parser import text_string_to_metric_families

from loadtests.micro.plan import Stamps

ROOT = Path(__file__).parents[2]
#: Histograms of each release's calls to Triton.
CALLS = {"rows": "gateway_call_rows", "padding": "gateway_call_padding_ratio"}
START_SECONDS = 240
STOP_SECONDS = 60
#: Which group a process counts to: by what its command line has in it, the first that fits.
GROUPS = {
    "instances": "triton_python_backend_stub",
    "triton": "tritonserver",
    "workers": "gateway_preprocessor.worker",
}


class StackError(RuntimeError):
    """The gateway did not start, or ended by itself; the text ends with what it printed."""


class Stack:
    """One gateway with a copy of these models, in a process group of its own.

    Its settings are the defaults, `gateway.toml` and GATEWAY_* as always, but for what must be
    the benchmark's own: port, repository (`folder/repository`), working folder, log. `variables`
    are set in its environment.
    """

    def __init__(
        self,
        folder: Path,
        models: tuple[str, ...],
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._folder = folder
        self._models = models
        self._variables = variables
        self._output = folder / "output.txt"
        self.host, self.port = "127.0.0.1", 0

    def __enter__(self) -> Self:
        """Start and wait until every release is ready. Raises StackError."""
        repository = self._folder / "repository"
        for model in self._models:
            ignored = shutil.ignore_patterns("__pycache__", "releases.history")
            shutil.copytree(ROOT / "model_repository" / model, repository / model, ignore=ignored)
        own = {"port": 0, "host": self.host, "repository": repository.absolute()}
        own |= {"run_dir": self._folder.absolute(), "log_file": self._folder.absolute() / "log"}
        environment = {f"GATEWAY_{name.upper()}": str(value) for name, value in own.items()}
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "serve"],
                cwd=ROOT,
                env={**os.environ, **self._variables, **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it; what does not end by itself is killed."""
        self._stop()

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self.host}:{self.port}"

    @property
    def triton(self) -> str:
        """The gRPC endpoint of its Triton, host:port."""
        return self._triton_address("grpc")

    @property
    def triton_metrics(self) -> str:
        """Where its Triton tells of itself."""
        return f"http://{self._triton_address('metrics')}/metrics"

    def groups(self) -> dict[str, list[int]]:
        """Return its processes of now by group: gateway, workers, triton, instances."""
        root = psutil.Process(self._process.pid)
        found = defaultdict[str, list[int]](list)
        for process in (root, *root.children(recursive=True)):
            line = " ".join(process.cmdline())
            group = next((name for name, part in GROUPS.items() if part in line), "gateway")
            found[group].append(process.pid)
        return dict(found)

    def stamps(self, model: str) -> dict[str, Stamps]:
        """Return, for each ready release of a model, what its answers must be stamped with."""
        answer = httpx.get(f"{self.url}/models/{model}").raise_for_status()
        releases: dict[str, dict[str, Any]] = answer.json()["releases"]
        return {
            name: Stamps(model, name, release["model_version"], release["preprocessor"])
            for name, release in releases.items()
            if release["state"] == "ready"
        }

    def calls(self, model: str, release: str) -> dict[str, float]:
        """Return what it counted so far of a release's calls to Triton: sums and counts."""
        text = httpx.get(f"{self.url}/metrics").raise_for_status().text
        return {
            sample.name: sample.value
            for family in text_string_to_metric_families(text)
            if family.name in CALLS.values()
            for sample in family.samples
            if (sample.labels["model"], sample.labels["release"]) == (model, release)
            and not sample.name.endswith("_bucket")
        }

    def ask(self, model: str, release: str, inputs: list[Any]) -> list[Any]:
        """Ask for a batch, outside any measurement; returns its outputs."""
        answer = httpx.post(
            f"{self.url}/{model}_batch_predict",
            content=msgspec.json.encode({"inputs": inputs}),
            headers={"Content-Type": "application/json", "X-Release": release},
            timeout=60,
        )
        outputs: list[Any] = answer.raise_for_status().json()["outputs"]
        return outputs

    def _triton_address(self, service: str) -> str:
        (pid,) = self.groups()["triton"]
        option = f"--{service}-port="
        (flag,) = (a for a in psutil.Process(pid).cmdline() if a.startswith(option))
        return f"127.0.0.1:{flag.removeprefix(option)}"

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            printed = self._output.read_text()
            if found := re.search(r"^ready at http://\S+:(\d+)$", printed, re.MULTILINE):
                self.port = int(found[1])
                return
            if self._process.poll() is not None:
                raise StackError(f"the gateway ended at its start:\n{printed}")
            time.sleep(0.1)
        raise StackError(f"the gateway was not ready in {START_SECONDS} s:\n{printed}")

    def _stop(self) -> None:
        if self._process.poll() is not None:
            return
        root = psutil.Process(self._process.pid)
        processes = [root, *root.children(recursive=True)]
        self._process.send_signal(signal.SIGINT)
        _, alive = psutil.wait_procs(processes, timeout=STOP_SECONDS)
        for process in alive:
            process.kill()
        self._process.wait()
