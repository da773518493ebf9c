"""CPU time and memory of processes: what was used since the last look, by kind, never twice."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest
from prometheus_client import REGISTRY

from gateway.telemetry.usage import Usage

#: Ends its CPU time where it says so, and waits for each line.
SPENDER = """
import sys, time
held = bytearray(30 << 20)
for _ in sys.stdin:
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    print("spent", flush=True)
"""


@pytest.fixture
def worker() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", SPENDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def spend(worker: subprocess.Popen[str]) -> None:
    assert worker.stdin
    assert worker.stdout
    worker.stdin.write("more\n")
    worker.stdin.flush()
    assert worker.stdout.readline() == "spent\n"


def value(name: str, kind: str) -> float:
    return REGISTRY.get_sample_value(name, {"kind": kind}) or 0.0


def cpu(kind: str = "worker") -> float:
    return value("gateway_process_cpu_seconds_total", kind)


def test_each_look_adds_what_was_used_since_the_last(worker: subprocess.Popen[str]) -> None:
    usage, before = Usage(), cpu()
    spend(worker)
    usage.look([worker.pid])
    first = cpu() - before
    assert first >= 0.19
    usage.look([worker.pid])
    assert cpu() - before == pytest.approx(first, abs=0.02)  # it idles
    spend(worker)
    usage.look([worker.pid])
    used = sum(psutil.Process(worker.pid).cpu_times()[:2])
    assert cpu() - before == pytest.approx(used, abs=0.02)


def test_memory_is_that_of_the_processes_there_are(worker: subprocess.Popen[str]) -> None:
    usage = Usage()
    spend(worker)  # it holds its memory by now
    usage.look([worker.pid])
    assert value("gateway_process_memory_bytes", "worker") > 30 << 20
    assert value("gateway_process_memory_bytes", "gateway") > 10 << 20
    usage.look([])
    assert value("gateway_process_memory_bytes", "worker") == 0


def test_a_worker_that_is_gone_is_passed_over(worker: subprocess.Popen[str]) -> None:
    usage = Usage()
    worker.kill()
    worker.wait()
    before = cpu("gateway")
    usage.look([worker.pid])
    assert value("gateway_process_memory_bytes", "worker") == 0
    assert cpu("gateway") > before
