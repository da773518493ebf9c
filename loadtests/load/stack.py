"""The gateway under test: `gateway serve` with its embedded Triton, on free ports, by itself."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

import httpx
import msgspec
import psutil
from prometheus_client.parser import text_string_to_metric_families

from loadtests.load.plan import Stamps
from loadtests.load.service import ROOT, Service, free_port

#: Histograms of each release's calls to Triton.
CALLS = {"rows": "gateway_call_rows", "padding": "gateway_call_padding_ratio"}


class Stack:
    """One gateway over a repository, in a process group of its own.

    Its settings are the defaults, `gateway.toml` and GATEWAY_* as always, but for what must be
    the benchmark's own: port, repository, working folder, log. `variables` are set in its
    environment.
    """

    def __init__(
        self,
        folder: Path,
        repository: Path,
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.host, self.port = "127.0.0.1", free_port()
        own = {"port": self.port, "host": self.host, "repository": repository.absolute()}
        own |= {"run_dir": folder.absolute(), "log_file": folder.absolute() / "log"}
        environment = {f"GATEWAY_{name.upper()}": str(value) for name, value in own.items()}
        self.service = Service(
            [sys.executable, "-m", "gateway", "serve"],
            folder / "output.txt",
            {**variables, **environment},
            named=("gateway", "gateway"),
        )

    def __enter__(self) -> Self:
        """Start and wait until it can answer. Raises ServiceError."""
        with ExitStack() as stack:
            stack.enter_context(self.service).wait(self._ready)
            stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it."""
        self.service.__exit__(kind, error, trace)

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
        return self.service.groups()

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

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz").is_success
        except httpx.TransportError:
            return False


def copy(models: Sequence[str], repository: Path) -> Path:
    """Copy models of the project's repository into one of the run's own; returns that."""
    for model in models:
        ignored = shutil.ignore_patterns("__pycache__", "releases.history")
        shutil.copytree(ROOT / "model_repository" / model, repository / model, ignore=ignored)
    return repository
