"""Metrics, each produced for real: by one gateway, and by two that share a port."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from gateway.deadline import Deadline
from gateway.releases import manifest
from gateway.serving.queue import PendingRequest
from gateway.telemetry import metrics
from tests.support.goldens import cases
from tests.support.repository import copied
from tests.support.stack import ROOT, Stack, serve

MODEL, PREPROCESSOR = "langid", "langid-preprocessor"
PATIENCE_SECONDS = 60
BOTH = (ROOT / "model_repository" / MODEL / manifest.FILE).read_text()
FIRST = BOTH.partition("[releases.2]")[0] + "[traffic]\n1 = 100\n"
UNLOCKED = f"""[releases.3]
model_version = 1
preprocessor = "{PREPROCESSOR}==1.0.0"

"""
CASE = cases(MODEL)[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(tmp_path_factory.mktemp("metrics") / "repository", [MODEL]) / MODEL


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two processes"])
def serving(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, folder: Path
) -> Iterator[Stack]:
    (folder / manifest.FILE).write_text(BOTH)
    stack = serve(
        tmp_path_factory.mktemp("run"),
        repository=str(folder.parent),
        processes=str(request.param),
        workers="1",
    )
    yield stack
    stack.interrupt()


@pytest.fixture
def client(serving: Stack) -> Iterator[httpx.Client]:
    with serving.client() as client:
        yield client


def value(client: httpx.Client, name: str, **labels: str) -> float | None:
    """Read the sample with exactly these labels; None where there is none."""
    shown = ",".join(f'{key}="{labels[key]}"' for key in sorted(labels))
    sample = re.escape(f"{name}{{{shown}}}" if shown else name)
    found = re.search(rf"^{sample} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else None


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_errors_are_counted_by_their_code(client: httpx.Client) -> None:
    single, batch = f"/{MODEL}_single_predict", f"/{MODEL}_batch_predict"
    seen = [
        client.post(single, content=b"{"),
        client.post(single, json={"input": 7}),
        client.post(single, json=CASE.single, headers={"X-Release": "none"}),
        client.post(batch, json={"inputs": []}),
        client.post("/made-up_single_predict", json=CASE.single),
        client.get("/made-up"),
    ]
    assert all(answer.json()["status"] == answer.status_code for answer in seen)
    for endpoint, model, code in (
        ("single", MODEL, "not_json"),
        ("single", MODEL, "invalid_input"),
        ("single", MODEL, "unknown_release"),
        ("batch", MODEL, "bad_envelope"),
        ("single", "", "unknown_model"),
        ("other", "", "unknown_route"),
    ):
        labels = {"model": model, "endpoint": endpoint, "code": code}
        assert value(client, "gateway_errors_total", **labels) == 1, labels
    assert "made-up" not in client.get("/metrics").text


def test_the_queue_takes_a_share_of_each_deadline(client: httpx.Client) -> None:
    name = "gateway_queue_deadline_ratio"

    def observed() -> tuple[float, float, float]:
        parts = [(f"{name}_count", {}), (f"{name}_sum", {}), (f"{name}_bucket", {"le": "0.5"})]
        found = [value(client, part, model=MODEL, **extra) or 0.0 for part, extra in parts]
        return found[0], found[1], found[2]

    count, total, below = observed()
    assert client.post(f"/{MODEL}_single_predict", json=CASE.single).status_code == 200
    answered, little, short = observed()
    assert (answered, short) == (count + 1, below + 1)
    assert little - total < 0.1  # of thirty seconds
    assert client.post(f"/{MODEL}_single_predict", json={"input": 7}).status_code == 422

    inputs = [CASE.golden.input] * 1024
    expired = client.post(
        f"/{MODEL}_batch_predict", json={"inputs": inputs}, headers={"X-Request-Timeout-Ms": "20"}
    )
    assert expired.status_code == 504
    now, much, still = observed()
    assert now == answered + 2
    assert much - little > 0.5  # its last rows did nothing but wait
    assert still == short + 1  # the invalid one


def test_time_in_the_queue_ends_where_work_begins() -> None:
    request = PendingRequest("r1", "somebody", Deadline.after(0.2), 2, waiting_since=10.0)
    request.leave_queue(10.25)  # a worker took all rows
    request.leave_queue(11.0)  # answered: it was not waiting
    assert request.queued == 0.25
    request.waiting_since = 12.0  # preprocessed
    request.leave_queue(12.5)  # its last row has left for Triton
    assert (request.queued, request.waiting_since) == (0.75, None)


def test_padding_is_counted_in_elements(client: httpx.Client) -> None:
    names = ("gateway_call_elements_total", "gateway_call_padding_elements_total")

    def counted() -> list[float]:
        return [value(client, name, model=MODEL, release="1") or 0.0 for name in names]

    before = counted()
    texts = ["kurz", "ein längerer Text, der mit dem kurzen einen Aufruf teilt"]
    answer = client.post(
        f"/{MODEL}_batch_predict", json={"inputs": texts}, headers={"X-Release": "1"}
    )
    assert answer.status_code == 200
    elements, padding = (now - then for now, then in zip(counted(), before, strict=True))
    assert 0 < padding < elements


def test_a_worker_that_dies_is_counted(serving: Stack, client: httpx.Client) -> None:
    name = "gateway_worker_restarts_total"
    before = value(client, name, distribution=PREPROCESSOR)
    assert before is not None, "it is shown before the first worker dies"
    workers = serving.workers(PREPROCESSOR)
    for worker in workers:
        worker.kill()
    until(lambda: value(client, name, distribution=PREPROCESSOR) == before + len(workers))
    assert client.post(f"/{MODEL}_single_predict", json=CASE.single).status_code == 200


def test_processes_show_their_cpu_and_memory(serving: Stack, client: httpx.Client) -> None:
    gateways = [p for p, line in serving.commands.items() if line[-1:] == ["serve"]]
    until(lambda: (value(client, "gateway_process_memory_bytes", kind="worker") or 0) > 10 << 20)
    memory = value(client, "gateway_process_memory_bytes", kind="gateway")
    assert memory is not None
    assert 10 << 20 < memory <= 1.2 * sum(process.memory_info().rss for process in gateways)
    for kind in ("gateway", "worker"):
        assert (value(client, "gateway_process_cpu_seconds_total", kind=kind) or 0) > 0


def test_releases_show_how_they_stand_as_long_as_they_are_there(
    client: httpx.Client, folder: Path
) -> None:
    names = [gauge.describe()[0].name for gauge in metrics.STANDING]

    def standing(release: str) -> list[float | None]:
        """Ready, rejected, weight."""
        return [value(client, name, model=MODEL, release=release) for name in names]

    until(lambda: standing("1") == [1, 0, 50] and standing("2") == [1, 0, 50])
    declared = folder / manifest.FILE
    declared.write_text(UNLOCKED + BOTH)
    until(lambda: standing("3") == [0, 1, 0])
    declared.write_text(FIRST)
    until(lambda: standing("3") == standing("2") == [None] * 3)
    until(lambda: standing("1") == [1, 0, 100])
    declared.write_text(BOTH)
    until(lambda: standing("1") == [1, 0, 50] and standing("2") == [1, 0, 50])


def test_the_log_tells_of_changes_and_not_of_probes(serving: Stack, client: httpx.Client) -> None:
    for path in ("/livez", "/readyz", "/metrics"):
        assert client.get(path).status_code == 200

    def lines(*events: str) -> list[dict[str, object]]:
        found = [json.loads(line) for line in serving.log.read_text().splitlines()]
        return [line for line in found if line["event"] in events]

    before = len(lines("ready", "not ready"))
    assert lines("ready", "not ready")[before - 1]["event"] == "ready"
    triton = serving.triton
    triton.suspend()  # only killed, it might be back before anybody looks
    until(lambda: client.get("/readyz").status_code == 503)
    triton.kill()
    changes = 2 * (len(serving.gateways) or 1)
    until(lambda: len(lines("ready", "not ready")) >= before + changes)
    time.sleep(1)  # no more of them, however often it was asked
    told = lines("ready", "not ready")[before:]
    assert len(told) == changes
    for line in told:
        assert line["level"] == ("info" if line["event"] == "ready" else "warning")
        assert (line["event"] == "ready") == ("problems" not in line)
    assert not [x for x in lines("request") if x["path"] in {"/livez", "/readyz", "/metrics"}]
