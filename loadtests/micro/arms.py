"""The arms: what is measured in windows of a few seconds, each once a round.

Each window returns its figures: `rate` (instances/s), percentiles of the latency in ms, the CPU
time of each group of processes in ms an instance (`cpu.…`), the `rows` and the `padding` of the
mean call to Triton, and what share of the machine `others` took.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from loadtests.load import corpus
from loadtests.load import window as load
from loadtests.load.limit import Limit
from loadtests.load.plan import Plan, Stamps, Stream, Tally, Target, Window
from loadtests.load.service import ROOT
from loadtests.load.stack import CALLS, Stack
from loadtests.micro.bare_handler import BareHandler
from loadtests.micro.inputs import Inputs
from loadtests.micro.quality import quality

Figures = dict[str, float]
#: The releases of `minilm` that are compared.
FP32, INT8 = "2", "3"
#: What an embedding's cosine to the bare fp32 model's must be at least, to be no error.
COSINES = {FP32: 0.9999, INT8: 0.9}
#: Windows that give the same in every round: the first one does.
ONCE = ("int8-quality",)
WARM_UP = 0.7


class Sample(NamedTuple):
    """One window: its figures, and every request's latency in ms."""

    figures: Figures
    latencies: Sequence[float] = ()


class Arms:
    """Everything that runs during the whole benchmark, and the windows on it."""

    def __init__(
        self, stack: Stack, limit: Limit, bare: BareHandler, inputs: Inputs, seconds: float
    ) -> None:
        self._stack = stack
        self._limit = limit
        self._bare = bare
        self._inputs = inputs
        self._seconds = seconds
        self._expected = limit.embed(inputs.folder)
        self._minilms, (self._tumor_stamps,) = (
            stack.stamps("minilm"),
            stack.stamps("tumor").values(),
        )
        self._round = 0
        self.skipped: dict[str, str] = {}
        self.windows: dict[str, Callable[[], Sample]] = {
            "limit-4": lambda: Sample(limit.batches(4, seconds)),
            "minilm-64": lambda: self._load(self._minilm(64)),
            "limit-8": lambda: Sample(limit.batches(8, seconds)),
            "minilm-16": lambda: self._load(self._minilm(16)),
            "minilm-mixed": lambda: self._load(self._minilm(16), self._minilm(1, rows=300)),
            "limit-16": lambda: Sample(limit.batches(16, seconds)),
            "minilm-batches": lambda: self._load(self._minilm(4, rows=32)),
            "int8-64": lambda: self._load(self._minilm(64, release=INT8)),
            "int8-quality": self._quality,
            "bare-text": self._bare_text,
            "minilm-1": lambda: self._load(self._minilm(1)),
            "bare-tornado": lambda: self._load(self._tumor(64, bare=True), bare=True),
            "tumor-64": lambda: self._load(self._tumor(64)),
            "stages": self._stages,
        }
        if INT8 not in self._minilms:
            reason = f"minilm has no release {INT8} that is ready"
            self.skipped = {"int8-64": reason, "int8-quality": reason}

    def begin(self, number: int) -> None:
        """Begin a round: requests start elsewhere in the corpus in each."""
        self._round = number

    @property
    def _offset(self) -> int:
        return corpus.start(self._round, self._inputs.size)

    def _minilm(self, users: int, rows: int = 1, release: str = FP32) -> Stream:
        return Stream(
            name="singles" if rows == 1 else "batches",
            targets=[self._target(self._minilms[release])],
            answers="embedding",
            users=users,
            rows=rows,
            inputs=str(self._inputs.texts),
            offset=self._offset,
            expected=str(self._expected),
            least_cosine=COSINES[release],
        )

    def _tumor(self, users: int, *, bare: bool = False) -> Stream:
        return Stream(
            name="singles",
            targets=[self._target(self._tumor_stamps)],
            answers="verdict",
            users=users,
            rows=1,
            inputs=str(self._inputs.records),
            expected=None if bare else str(self._inputs.verdicts),
        )

    @staticmethod
    def _target(stamps: Stamps) -> Target:
        return Target(stamps.model, stamps)

    def _load(self, *streams: Stream, bare: bool = False) -> Sample:
        """Run one window of the load generator; the first stream is the one that is measured."""
        plan = Plan(
            host=self._stack.host,
            port=self._bare.port if bare else self._stack.port,
            warm_up=WARM_UP,
            seconds=self._seconds,
            streams=list(streams),
            watched=self._stack.groups() | {"bare": [self._bare.pid]},
        )
        measured = streams[0].targets[0].stamps
        assert measured  # noqa: S101 - every target here has them
        before = self._stack.calls(measured.model, measured.release)
        window = load.run(plan)
        after = self._stack.calls(measured.model, measured.release)
        if problems := load.problems(window):
            raise load.WrongAnswers(problems)
        first, *others = (window.tallies[stream.name] for stream in streams)
        figures = _figures(first, window.seconds) | _cpu(window)
        figures |= _means(before, after)
        for stream, tally in zip(streams[1:], others, strict=True):
            beside = _figures(tally, window.seconds)
            figures |= {f"{stream.name}.{name}": value for name, value in beside.items()}
        return Sample(figures, first.latencies)

    def _quality(self) -> Sample:
        """Compare the int8 release's embeddings of all texts with the bare fp32 model's."""
        texts = self._inputs.read_texts()
        found = quality(lambda rows: self._stack.ask("minilm", INT8, rows), texts, self._expected)
        return Sample(found)

    def _bare_text(self) -> Sample:
        figures, latencies = self._limit.singles(self._offset, self._seconds)
        return Sample(figures | load.percentiles(latencies), latencies)

    def _stages(self) -> Sample:
        texts = str(self._inputs.texts)
        found = _child("loadtests.micro.stages", texts, self._stack.triton, str(self._seconds))
        return Sample(msgspec.json.decode(found, type=Figures))


def _cpu(window: Window) -> Figures:
    """Return each group's CPU time in ms an instance, and the others' share of the machine."""
    rows = sum(tally.rows for tally in window.tallies.values())
    machine = window.seconds * len(os.sched_getaffinity(0))
    ours = {group: spent for group, spent in window.cpu.items() if group != "others"}
    found = {f"cpu.{group}": spent * 1000 / rows for group, spent in ours.items()}
    return found | {
        "cpu.all": sum(ours.values()) * 1000 / rows,
        "others": window.cpu["others"] / machine,
    }


def _means(before: Figures, after: Figures) -> Figures:
    """Return rows and padding of the mean call between two readings of the counters."""
    found = {}
    for name, metric in CALLS.items():
        calls = after[f"{metric}_count"] - before[f"{metric}_count"]
        if calls:
            found[name] = (after[f"{metric}_sum"] - before[f"{metric}_sum"]) / calls
    return found


def _figures(tally: Tally, seconds: float) -> Figures:
    found = {"rate": tally.rows / seconds, "requests": float(tally.requests)}
    if tally.cosines:
        found["cosine.mean"] = float(np.mean(tally.cosines))
        found["cosine.min"] = min(tally.cosines)
    return found | load.percentiles(tally.latencies)


def _child(module: str, *arguments: str) -> bytes:
    """Run a module of this package as a process of its own; returns what it printed."""
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, cwd=ROOT, check=True).stdout  # noqa: S603
