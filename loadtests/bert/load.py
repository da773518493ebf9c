"""The load: several of the microbenchmark's generators at once, one would not be enough."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple

import httpx
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from loadtests.bert.repository import MODEL, RELEASE
from loadtests.load.plan import Plan, Stream, Target, Window
from loadtests.load.service import ROOT
from loadtests.load.stack import Stack
from loadtests.load.window import GENERATOR, WrongAnswers, percentiles

#: What Triton counts of a model.
COUNTED = {
    "nv_inference_request_success": "calls",
    "nv_inference_count": "rows",
    "nv_inference_exec_count": "executions",
    "nv_inference_compute_infer_duration_us": "infer_us",
    "nv_inference_queue_duration_us": "queue_us",
}


class Workload(NamedTuple):
    """One kind of load: rows of a request (1: the single endpoint), and users in all."""

    rows: int
    users: int


class Load:
    """Puts workloads on a stack. `inputs` and `expected` are JSON files of texts and scores."""

    def __init__(self, stack: Stack, inputs: Path, expected: Path, generators: int) -> None:
        self._stack = stack
        self._inputs = inputs
        self._expected = expected
        self._generators = generators
        self._stamps = stack.stamps(MODEL)[RELEASE]

    def run(self, workload: Workload, warm_up: float, seconds: float) -> dict[str, Any]:
        """Measure one workload. Raises WrongAnswers.

        Returns its rate (rows/s), latencies (ms), the cores that each group of processes kept
        busy, and what a call to Triton and one of its executions were in the mean.
        """
        before = self._counts()
        plans = [self._plan(workload, part, warm_up, seconds) for part in range(self._generators)]
        windows = _all(plans)
        done = {name: value - before[name] for name, value in self._counts().items()}
        tallies = [tally for window in windows for tally in window.tallies.values()]
        if problems := [problem for tally in tallies for problem in tally.problems]:
            raise WrongAnswers(f"{sum(tally.wrong for tally in tallies)}, such as {problems[0]}")
        rate = sum(
            tally.rows / window.seconds for window in windows for tally in window.tallies.values()
        )
        return {
            "users": workload.users,
            "rows_per_request": workload.rows,
            "rows_per_second": rate,
            "latency_ms": percentiles([value for tally in tallies for value in tally.latencies]),
            "cores": _cores(windows),
            "rows_per_call": done["rows"] / done["calls"],
            "rows_per_execution": done["rows"] / done["executions"],
            "execution_ms": done["infer_us"] / done["calls"] / 1000,
            "triton_queue_ms": done["queue_us"] / done["calls"] / 1000,
        }

    def _plan(self, workload: Workload, part: int, warm_up: float, seconds: float) -> Plan:
        texts = len(msgspec.json.decode(self._inputs.read_bytes()))
        stream = Stream(
            name="load",
            targets=[Target(MODEL, self._stamps)],
            answers="scores",
            users=len(range(part, workload.users, self._generators)),
            rows=workload.rows,
            inputs=str(self._inputs),
            offset=part * texts // self._generators,
            expected=str(self._expected),
        )
        watched = {} if part else self._stack.groups()
        return Plan(self._stack.host, self._stack.port, warm_up, seconds, [stream], watched)

    def _counts(self) -> dict[str, float]:
        """Return Triton's totals for the model."""
        found = dict.fromkeys(COUNTED.values(), 0.0)
        text = httpx.get(self._stack.triton_metrics).raise_for_status().text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                name = COUNTED.get(sample.name.removesuffix("_total"))  # the parser adds it
                if name and sample.labels["model"] == MODEL:
                    found[name] += sample.value
        return found


def _all(plans: Sequence[Plan]) -> list[Window]:
    """Run generators at the same time. What they write goes to files: a full pipe would wait."""
    with ExitStack() as stack:
        files = [stack.enter_context(TemporaryFile()) for _ in plans]
        processes = []
        for plan, file in zip(plans, files, strict=True):
            process = subprocess.Popen(GENERATOR, cwd=ROOT, stdin=subprocess.PIPE, stdout=file)  # noqa: S603
            stack.enter_context(process)
            processes.append(process)
            assert process.stdin  # noqa: S101 - a pipe
            process.stdin.write(msgspec.json.encode(plan))
            process.stdin.close()
        codes = [process.wait() for process in processes]
        if any(codes):
            raise WrongAnswers("a generator failed; its error is above")
        windows = []
        for file in files:
            file.seek(0)
            windows.append(msgspec.json.decode(file.read(), type=Window))
    return windows


def _cores(windows: Sequence[Window]) -> dict[str, float]:
    cores = {
        name: spent / windows[0].seconds
        for name, spent in windows[0].cpu.items()
        if name != "others"
    }
    generators = sum(window.cpu["generator"] / window.seconds for window in windows)
    return {**cores, "generator": generators}
