"""A running arm: started, asked until it answers, watched, ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil

from loadtests.baselines import ARMS
from loadtests.bench import results
from loadtests.bench.models import Models
from loadtests.load.plan import Target
from loadtests.load.protocol import Protocol
from loadtests.load.service import ROOT, Service, free_port
from loadtests.load.stack import Stack

HOST = "127.0.0.1"
#: The gateway's arms: by which repository of `models` it serves, and its title.
GATEWAYS = {
    "gateway": ("minilm", "Tornado gateway + Triton, ONNX"),
    "gateway_torchscript": ("minilm_torchscript", "Tornado gateway + Triton, TorchScript"),
}
READY = {"predict": "/readyz", "v2": "/v2/health/ready"}


class Deployment(NamedTuple):
    """One server of one arm, `started` at that moment of the monotonic clock."""

    arm: str
    models: Models
    port: int
    protocol: Protocol
    targets: list[Target]
    service: Service
    started: float

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{HOST}:{self.port}"

    def memory(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return RSS and PSS in bytes by group of processes."""
        rss, pss = dict[str, int](), dict[str, int]()
        for group, processes in self.service.processes().items():
            for process in processes:
                try:
                    used = process.memory_full_info()
                except psutil.NoSuchProcess:
                    continue
                rss[group] = rss.get(group, 0) + used.rss
                pss[group] = pss.get(group, 0) + used.pss
        return rss, pss


@contextmanager
def deployed(arm: str, models: Models, folder: Path) -> Iterator[Deployment]:
    """Run an arm for the length of the block; `folder` is for what it writes.

    Raises ServiceError.
    """
    if arm in GATEWAYS:
        with gateway(arm, models, _repository(arm, models), folder) as found:
            yield found
        return
    baseline, port, started = ARMS[arm], free_port(), time.monotonic()
    folder.mkdir(parents=True)
    command = [baseline.python, "-m", f"loadtests.baselines.{arm}"]
    command += ["--models", str((models.folder / "models.json").absolute())]
    command += ["--host", HOST, "--port", str(port), "--settings", baseline.settings]
    targets = [Target(name) for name in models.names]
    service = Service(command, folder.absolute() / "output.txt")
    found = Deployment(arm, models, port, baseline.protocol, targets, service, started)
    with service:
        service.wait(lambda: _ready(found))
        yield found


@contextmanager
def gateway(arm: str, models: Models, repository: Path, folder: Path) -> Iterator[Deployment]:
    """Run the gateway over a repository; every ready release of each model is a target.

    Raises ServiceError.
    """
    started = time.monotonic()
    folder.mkdir(parents=True)
    with Stack(folder, repository) as stack:
        names = sorted(path.parent.name for path in repository.glob("*/config.pbtxt"))
        targets = [Target(name, stamps) for name in names for stamps in stack.stamps(name).values()]
        yield Deployment(arm, models, stack.port, "predict", targets, stack.service, started)


def described(arm: str, models: Models) -> results.Arm:
    """Describe an arm for the report, with what it was set to."""
    if arm not in GATEWAYS:
        baseline = ARMS[arm]
        settings = (ROOT / baseline.settings).read_text()
        return results.Arm(arm, baseline.title, baseline.description, settings)
    model = next(_repository(arm, models).glob("*/config.pbtxt")).parent
    settings = "\n".join((model / name).read_text() for name in ("releases.toml", "config.pbtxt"))
    description = "this project: preprocessing in isolated workers, calls packed for Triton"
    return results.Arm(arm, GATEWAYS[arm][1], description, settings)


def _repository(arm: str, models: Models) -> Path:
    name = "repository" if models.random_weights else f"repository_{GATEWAYS[arm][0]}"
    return models.folder / name


def _ready(deployment: Deployment) -> bool:
    try:
        answer = httpx.get(deployment.url + READY[deployment.protocol], timeout=5)
    except httpx.HTTPError:
        return False
    return answer.is_success
