"""Starting, draining and stopping: nothing is cut off, nothing is left behind."""

from __future__ import annotations

import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx
import psutil

from gateway.control.release_runtime import RETRY_SECONDS
from tests.support.goldens import cases
from tests.support.repository import copied
from tests.support.stack import GATEWAY, Stack, serve


def test_ctrl_c_while_starting_leaves_nothing(tmp_path: Path) -> None:
    for seconds in (0.1, 1.0, 2.5):
        stack = Stack([GATEWAY, "serve"], tmp_path / str(seconds), models="tumor")
        while "starting Triton" not in stack.output.read_text():
            time.sleep(0.05)
        time.sleep(seconds)
        stack.interrupt()
        assert "Traceback" not in stack.output.read_text()


def test_a_killed_gateway_takes_triton_along(tmp_path: Path) -> None:
    stack = serve(tmp_path, models="tumor")
    processes = stack.processes
    stack.process.kill()
    stack.process.wait()
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert not alive


def test_requests_under_way_are_answered_before_it_stops(tmp_path: Path) -> None:
    stack = serve(tmp_path, models="minilm")
    processes = stack.processes
    answers: list[httpx.Response] = []
    body = {"inputs": ["a long text that takes its time " * 40] * 48}

    def ask() -> None:
        with stack.client() as client:
            answers.append(client.post("/minilm_batch_predict", json=body))

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(0.5)
    assert not answers, "the request must still be under way"
    stack.process.send_signal(signal.SIGTERM)
    asking.join(timeout=60)
    assert answers[0].status_code == 200
    assert len(answers[0].json()["outputs"]) == 48
    assert stack.process.wait(timeout=60) == 0
    assert not psutil.wait_procs(processes, timeout=30)[1]


def test_an_external_triton_is_used_as_it_is(stack: Stack, tmp_path: Path) -> None:
    port = next(
        connection.laddr.port
        for connection in stack.triton.net_connections()
        if connection.status == "LISTEN" and _speaks_grpc(stack, connection.laddr.port)
    )
    second = serve(tmp_path, models="tumor", triton=f"127.0.0.1:{port}")
    try:
        assert "tritonserver" not in {Path(line[0]).name for line in second.commands.values()}
        case = cases("tumor")[0]
        with second.client() as client:
            answer = client.post("/tumor_single_predict", json=case.single)
        assert case.wrong(answer.json()["output"]) is None
    finally:
        second.interrupt()
    with stack.client() as client:
        assert client.get("/readyz").status_code == 200


def test_an_unreachable_triton_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {"port": str(port), "models": "tumor", "triton": "127.0.0.1:9"}
    stack = Stack([GATEWAY, "serve"], tmp_path, **settings)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            told = ""
            deadline = time.monotonic() + 60
            while "no Triton replica answers" not in told:
                assert time.monotonic() < deadline, told
                time.sleep(0.1)
                with suppress(httpx.ConnectError):
                    ready = client.get("/readyz")
                    assert ready.status_code == 503
                    told = ready.json()["problems"].get("tumor/1", "")
            answer = client.post("/tumor_single_predict", json=cases("tumor")[0].single)
            assert (answer.status_code, answer.json()["code"]) == (503, "triton_unreachable")
            assert answer.headers["Retry-After"]
            assert client.get("/livez").status_code == 200
    finally:
        stack.interrupt()


def _speaks_grpc(stack: Stack, port: int) -> bool:
    return f'"replica":"127.0.0.1:{port}"' in stack.log.read_text()


def test_sighup_opens_the_log_anew_and_looks_again(tmp_path: Path) -> None:
    repository = copied(tmp_path / "repository", ["tumor", "digits"])
    model = repository / "tumor/1/model.onnx"
    whole = model.read_bytes()
    model.unlink()  # it may be linked
    model.write_bytes(whole + b"changed")
    stack = serve(tmp_path / "run", repository=str(repository), processes="2")
    try:
        with stack.client() as client:
            case = cases("tumor")[0]
            assert client.post("/tumor_single_predict", json=case.single).status_code == 503
            # Put right without a change of the declarations: noticed half a minute later, or now.
            model.write_bytes(whole)
            stack.log.rename(tmp_path / "log.1")
            asked = time.monotonic()
            stack.process.send_signal(signal.SIGHUP)
            while client.post("/tumor_single_predict", json=case.single).status_code != 200:
                assert time.monotonic() - asked < RETRY_SECONDS / 2
                time.sleep(0.1)
        lines = stack.log.read_text()
        assert lines.count('"event":"release aligned"') == 2  # by both gateways
        assert '"event":"request"' in lines
    finally:
        stack.interrupt()
