"""Which configurations are worth measuring, and why the others are not."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from loadtests.tuning.placement import ONNX, THREADS, TORCH, Placed, Placement


class TuningError(Exception):
    """Nothing can be measured or written; the message says why and what to do."""


class Candidate(NamedTuple):
    """One configuration: of the model in Triton, and the most rows of a call to it."""

    instances: int
    threads: int
    rows: int
    delay_us: int

    @property
    def placement(self) -> Placement:
        """What `config.pbtxt` says of it."""
        return Placement(self.instances, self.threads, self.delay_us)

    @property
    def cores(self) -> tuple[int, int]:
        """Orders candidates by what they take: cores, then instances, which take memory."""
        return self.instances * self.threads, self.instances

    def __str__(self) -> str:
        return f"{self.instances} × {self.threads}, {self.rows} rows, {self.delay_us} µs"


class Grid(NamedTuple):
    """The values to combine.

    None: powers of two. Where neither is given, only combinations that take all cores, and 1 × 1.
    """

    instances: Sequence[int] | None
    threads: Sequence[int] | None
    rows: Sequence[int]
    delays: Sequence[int]


class Choice(NamedTuple):
    """The present configuration, what is measured, and a line for each combination that is not."""

    now: Candidate
    measured: list[Candidate]
    skipped: list[str]


def choose(
    placed: Placed, now: Candidate, others: Sequence[Placed], grid: Grid, cores: int
) -> Choice:
    """Combine the grid's values into candidates; the present configuration comes first.

    `others` are the repository's other models. Raises TuningError for a model that cannot be
    tuned here, and for threads asked for that LibTorch's process-wide setting forbids.
    """
    _require_tunable(placed)
    powers = [2**power for power in range(cores.bit_length())]
    coarse = not (grid.instances or grid.threads)
    threads, skipped = _threads(placed, others, grid.threads, powers)
    measured = []
    if now.instances * now.threads <= cores:
        measured.append(now)
    else:
        skipped.append(f"the present {now}: {_beyond(now.instances, now.threads, cores)}")
    for instances, count in itertools.product(grid.instances or powers, threads):
        if instances * count > cores:
            skipped.append(f"{instances} × {count}: {_beyond(instances, count, cores)}")
        elif coarse and 1 < instances * count < powers[-1]:
            skipped.append(f"{instances} × {count}: takes some of the cores only (--cores)")
        else:
            measured += [
                Candidate(instances, count, rows, delay)
                for delay, rows in itertools.product(grid.delays, grid.rows)
                if rows <= placed.max_batch_size
            ]
    if large := [rows for rows in grid.rows if rows > placed.max_batch_size]:
        told = ", ".join(map(str, large))
        skipped.append(f"{told} rows: above max_batch_size ({placed.max_batch_size})")
    if not measured:
        raise TuningError("no candidate is left:\n" + "\n".join(f"  {line}" for line in skipped))
    return Choice(now, list(dict.fromkeys(measured)), skipped)


def torch_threads(models: Sequence[Placed]) -> dict[Placed, int]:
    """Return which TorchScript models set LibTorch's process-wide threads, and to what."""
    return {
        model: model.placement.threads
        for model in models
        if model.backend == TORCH and model.placement.threads
    }


def conflict(placed: Placed, threads: int, other: Placed, number: int) -> str:
    """Say that two TorchScript models want different threads, naming both files."""
    return (
        f"{THREADS[TORCH]} holds for the whole Triton process: {placed.path} cannot have"
        f" {threads} while {other.path} has {number}"
    )


def _require_tunable(placed: Placed) -> None:
    if placed.backend not in (ONNX, TORCH):
        kind = f"a model of backend {placed.backend!r}"
        raise TuningError(f"{placed.path}: {kind} is not tuned, only ONNX and TorchScript")
    if not placed.on_cpu:
        raise TuningError(f"{placed.path}: an instance group on GPUs is not tuned here")
    if placed.max_batch_size < 1:
        raise TuningError(f"{placed.path}: a model needs max_batch_size ≥ 1 to be served")


def _threads(
    placed: Placed, others: Sequence[Placed], asked: Sequence[int] | None, powers: Sequence[int]
) -> tuple[Sequence[int], list[str]]:
    """Return the threads to try, and why some are left out."""
    threads, fixed = asked or powers, torch_threads(others)
    if placed.backend != TORCH or not fixed:
        return threads, []
    other, number = next(iter(fixed.items()))
    bad = [count for count in threads if count != number]
    if asked and bad:
        raise TuningError(conflict(placed, bad[0], other, number))
    return [number], [f"{count} threads: {conflict(placed, count, other, number)}" for count in bad]


def _beyond(instances: int, threads: int, cores: int) -> str:
    return f"{instances * threads} threads would share {cores} cores"
