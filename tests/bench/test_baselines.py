"""Every architecture that the gateway is compared with works: real processes, tiny models."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import psutil
import pytest

from loadtests.baselines import ARMS, Baseline
from loadtests.zoo import catalogue
from tests.support.stack import ROOT

MODELS_PYTHON = ROOT / ".venv-models/bin/python"
INSTALLED = (".venv-models/baselines", ".venv-ensemble/installed")
pytestmark = pytest.mark.skipif(
    not all((ROOT / path).exists() for path in INSTALLED),
    reason="the baselines are not installed (`make baselines`)",
)
#: More than flask_transformers keeps loaded.
COUNT, SERVED = 9, 2
TOLERANCE = 1e-4
START_SECONDS, STOP_SECONDS = 120, 30
DISPATCHED = ("tornado_torch", "tornado_onnx")


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models; `few.json` lists the first ones only."""
    folder = tmp_path_factory.mktemp("zoo")
    command = [MODELS_PYTHON, "-m", "loadtests.zoo", folder]
    subprocess.run([*command, "--count", str(COUNT), "--size", "tiny"], cwd=ROOT, check=True)
    models = msgspec.json.decode((folder / catalogue.MODELS).read_bytes())
    few = dict(list(models.items())[:SERVED])
    (folder / "few.json").write_bytes(msgspec.json.encode(few))
    return folder


class Service:
    """One baseline that runs."""

    def __init__(self, arm: Baseline, zoo: Path, output: Path) -> None:
        self.arm = arm
        listed = zoo / (catalogue.MODELS if arm.name == "flask_transformers" else "few.json")
        self.models = list(msgspec.json.decode(listed.read_bytes()))
        cases = msgspec.json.decode(
            (zoo / catalogue.REFERENCE).read_bytes(), type=dict[str, catalogue.Cases]
        )
        self.cases = {name: cases[name] for name in self.models}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        options = ["--models", listed, "--port", str(self.port), "--settings", arm.settings]
        self._output = output.open("wb")
        self.process = subprocess.Popen(
            [arm.python, "-m", f"loadtests.baselines.{arm.name}", *options],
            cwd=ROOT,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)
        self.wait_ready()

    def wait_ready(self) -> None:
        path = "/readyz" if self.arm.protocol == "predict" else "/v2/health/ready"
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.client.get(path).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        told = Path(self._output.name).read_text()
        self.stop()
        raise AssertionError(f"{self.arm.name} is not ready:\n{told}")

    def post(self, model: str, form: str, body: bytes) -> httpx.Response:
        content = {"Content-Type": "application/json"}
        return self.client.post(f"/{model}_{form}_predict", content=body, headers=content)

    def ask(self, model: str, texts: list[str], form: str) -> list[list[float]]:
        if self.arm.protocol == "v2":
            return self._infer(model, texts)
        body = {"input": texts[0]} if form == "single" else {"inputs": texts}
        answer = self.post(model, form, msgspec.json.encode(body)).raise_for_status().json()
        assert set(answer) == {"output" if form == "single" else "outputs"}
        rows = [answer["output"]] if form == "single" else answer["outputs"]
        assert all(set(row) == {"scores"} for row in rows)
        return [row["scores"] for row in rows]

    def _infer(self, model: str, texts: list[str]) -> list[list[float]]:
        (output,) = (
            self.client.post(f"/v2/models/{model}_ensemble/infer", json=tensor(texts))
            .raise_for_status()
            .json()["outputs"]
        )
        assert output["name"] == "scores"
        rows: list[list[float]] = np.reshape(output["data"], output["shape"]).tolist()
        return rows

    def family(self) -> list[psutil.Process]:
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]

    def stop(self) -> list[psutil.Process]:
        """Send SIGTERM; returns what is still there after a while, and kills it."""
        family = self.family() if self.process.poll() is None else []
        self.process.terminate()
        _, left = psutil.wait_procs(family, STOP_SECONDS)
        for process in left:
            process.kill()
        self.process.wait()
        self.client.close()
        self._output.close()
        return left


def tensor(texts: list[Any], datatype: str = "BYTES") -> dict[str, Any]:
    given = {"name": "TEXT", "shape": [len(texts), 1], "datatype": datatype, "data": texts}
    return {"inputs": [given]}


@pytest.fixture(scope="module", params=ARMS.values(), ids=list(ARMS))
def service(
    request: pytest.FixtureRequest, zoo: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """Each architecture in turn; at its end no process of it is left."""
    running = Service(request.param, zoo, tmp_path_factory.mktemp("service") / "output.txt")
    try:
        yield running
    finally:
        left = running.stop()
    assert not left
    assert running.process.returncode == 0


def test_singles_and_batches_are_the_reference_s(service: Service) -> None:
    for model, cases in service.cases.items():
        singles = [service.ask(model, [text], "single")[0] for text in cases.inputs]
        np.testing.assert_allclose(singles, cases.outputs, atol=TOLERANCE)
        many = 5  # a request of more rows than go through the model at once
        batch = service.ask(model, cases.inputs * many, "batch")
        np.testing.assert_allclose(batch, cases.outputs * many, atol=TOLERANCE)


def test_bad_input_is_refused(service: Service) -> None:
    model = service.models[0]
    if service.arm.protocol == "v2":
        url = f"/v2/models/{model}_ensemble/infer"
        answers = [  # to what is no JSON, this Triton answers 500: its own affair
            service.client.post(url, json=tensor([1], "INT64")),
            service.client.post(url, json={"inputs": []}),
            service.client.post("/v2/models/nobody_ensemble/infer", json=tensor(["a"])),
        ]
        assert all(answer.is_client_error for answer in answers), answers
        return
    wanted = (
        (model, "single", b"{", 400),
        (model, "single", b"\xff", 400),
        (model, "single", b'{"input": 7}', 422),
        (model, "single", b'{"input": ""}', 422),
        (model, "single", b"[]", 422),
        (model, "batch", b'{"inputs": []}', 422),
        (model, "batch", b'{"inputs": ["fine", null]}', 422),
        ("nobody", "single", b'{"input": "text"}', 404),
        (model, "unknown", b'{"input": "text"}', 404),
    )
    for name, form, body, status in wanted:
        answer = service.post(name, form, body)
        assert answer.status_code == status, (body, answer.text)
        assert answer.json()["error"]
    assert service.ask(model, service.cases[model].inputs[:1], "single")


def test_what_is_killed_comes_back(service: Service) -> None:
    if service.arm.name not in DISPATCHED:
        pytest.skip("only the dispatched ones supervise processes themselves")
    for name in (service.models[0], "dispatcher 0"):
        (process,) = (p for p in service.family() if p.name() == name)
        process.send_signal(signal.SIGKILL)
        process.wait()
        service.wait_ready()
        for model, cases in service.cases.items():
            answers = service.ask(model, cases.inputs, "batch")
            np.testing.assert_allclose(answers, cases.outputs, atol=TOLERANCE)


EVICTION = """
import gc, sys, weakref
from pathlib import Path
from loadtests.baselines import catalogue
from loadtests.baselines.flask_transformers.models import Models
models = catalogue.read(Path(sys.argv[1]))
kept = Models(models, len(models) - 1, 32)
seen = {name: weakref.ref(kept[name]) for name in models}
gc.collect()
first, second, *_, last = models
assert seen[first]() is None, "the ninth model did not push out the first"
assert kept[last] is seen[last]() and kept[second] is seen[second]()
assert kept[first].predict(["a text"]).shape == (1, 2)
"""


def test_the_ninth_model_pushes_out_the_first(zoo: Path) -> None:
    command = [MODELS_PYTHON, "-c", EVICTION, zoo / catalogue.MODELS]
    subprocess.run(command, cwd=ROOT, check=True)
