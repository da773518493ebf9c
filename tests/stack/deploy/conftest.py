"""One real Triton for the backend tests, and the means to write models into its repository."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc import aio as triton_grpc

from gateway.triton.embedded import EmbeddedTriton
from gateway.triton.launcher import EmbeddedOptions
from tests.stack.deploy.backend_models import ONNX_PAIR, SERVED
from tests.support.stack import ROOT

PYTHON = ROOT / ".venv-models/bin/python"


@dataclass(frozen=True)
class Served:
    """A running Triton, its repository and a client."""

    triton: EmbeddedTriton
    repository: Path
    graphs: Path
    client: Any

    def write(self, name: str, graph: str, config: str | None, filename: str = "") -> None:
        """Make a model of a graph; an empty graph name makes a corrupt file."""
        version = self.repository / name / "1"
        version.mkdir(parents=True)
        target = version / (filename or f"model{Path(graph).suffix}")
        shutil.copy(self.graphs / graph, target)
        if config is not None:
            (version.parent / "config.pbtxt").write_text(config)


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    subprocess.run(
        [PYTHON, "-W", "ignore", Path(__file__).with_name("make_graphs.py"), folder], check=True
    )
    for name in ("corrupt.onnx", "corrupt.pt"):
        (folder / name).write_bytes(b"no model at all")
    return folder


@pytest.fixture(scope="session")
def numpy_version() -> str:
    """The models' environment's numpy."""
    (found,) = PYTHON.parents[1].glob("lib/python*/site-packages/numpy-*.dist-info")
    return found.name.split("-")[1].removesuffix(".dist")


@pytest.fixture(scope="package")
async def served(graphs: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    (folder / "models").mkdir()
    options = EmbeddedOptions(
        repository=folder / "models",
        python=PYTHON,
        backends=ROOT / "deploy/triton/backends",
        run_dir=folder / "run",
        canary=ROOT / "deploy/triton/canary",
        threads=1,
    )
    triton = EmbeddedTriton(options)
    await triton.start()
    async with triton_grpc.InferenceServerClient(triton.grpc_endpoint) as client:
        yield Served(triton, options.repository, graphs, client)
    await triton.stop()


@pytest.fixture(scope="package")
def load_all(served: Served) -> Callable[[list[str]], Awaitable[dict[str, str]]]:
    """Load models at the same time; answers the error text of each, empty where it loaded."""

    async def load(names: list[str]) -> dict[str, str]:
        results = await asyncio.gather(
            *(served.client.load_model(name) for name in names), return_exceptions=True
        )
        return {
            name: "" if result is None else str(result)
            for name, result in zip(names, results, strict=True)
        }

    return load


@pytest.fixture(scope="package")
async def models(
    served: Served, load_all: Callable[[list[str]], Awaitable[dict[str, str]]]
) -> Served:
    """Every good model, loaded."""
    for name, (graph, config) in SERVED.items():
        served.write(name, graph, config)
    served.write(
        "onnx_renamed", "pair.onnx", ONNX_PAIR + 'default_model_filename: "net.onnx"', "net.onnx"
    )
    errors = await load_all([*SERVED, "onnx_renamed"])
    assert {name: text for name, text in errors.items() if text} == {}
    return served
