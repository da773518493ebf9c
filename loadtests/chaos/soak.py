"""A long run under mixed load: memory, descriptors, threads and processes must not grow.

`make soak` takes twenty minutes.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import psutil

from loadtests.chaos.ledger import Account, account
from loadtests.chaos.traffic import Source, Traffic
from loadtests.chaos.trial import MODELS
from loadtests.load.service import ROOT
from loadtests.load.stack import Stack, copy

#: Users of each model: enough to keep two cores busy.
SOURCES = (
    Source("minilm", users=4, deadline=30),
    Source("langid", users=2, deadline=30),
    Source("langid", users=1, rows=40, deadline=30),
    Source("digits", users=2, deadline=30),
    Source("tumor", users=2, deadline=30),
)
#: Seconds between samples, and the share of the run that warms allocators up.
EVERY, WARM = 5.0, 0.25
#: Growth over the judged part that counts as noise: bytes, or a share of the memory.
NOISE, SHARE = 16 << 20, 0.03


class Sample(NamedTuple):
    """What a group of processes uses at a moment (seconds since the start)."""

    at: float
    memory: int
    descriptors: int
    threads: int
    processes: int


class Trend(NamedTuple):
    """How a group's use changed over the judged part of the run, by a fitted line."""

    group: str
    memory: float
    growth: float
    descriptors: float
    threads: float
    processes: float

    @property
    def grows(self) -> bool:
        """Whether it uses ever more."""
        leaks = max(self.descriptors, self.threads, self.processes) >= 1
        return leaks or self.growth > max(NOISE, SHARE * self.memory)


async def soak(stack: Stack, seconds: float) -> tuple[Account, list[Trend]]:
    """Send requests for so long; return what came of them and how the processes changed."""
    traffic = Traffic(stack.host, stack.port)
    samples = defaultdict[str, list[Sample]](list)
    started = time.perf_counter()
    async with traffic.flowing(*SOURCES):
        while (at := time.perf_counter() - started) < seconds:
            for group, sample in _samples(stack, at).items():
                samples[group].append(sample)
            await asyncio.sleep(EVERY)
    trends = [
        trend(group, [one for one in taken if one.at >= WARM * seconds])
        for group, taken in samples.items()
    ]
    return account(traffic.sent), trends


def trend(group: str, taken: Sequence[Sample]) -> Trend:
    """Fit a line through each figure, and return by how much it rises from start to end."""
    columns = np.array(taken, float).T
    times = columns[0]
    length = times[-1] - times[0]
    memory, *others = (float(np.polyfit(times, column, 1)[0]) * length for column in columns[1:])
    return Trend(group, float(columns[1].mean()), memory, *others)


def _samples(stack: Stack, at: float) -> Mapping[str, Sample]:
    found = {}
    for group, processes in stack.service.processes().items():
        used = [one for one in map(_used, processes) if one]
        memory, descriptors, threads = (sum(column) for column in zip(*used, strict=True))
        found[group] = Sample(at, memory, descriptors, threads, len(used))
    return found


def _used(process: psutil.Process) -> tuple[int, int, int] | None:
    with suppress(psutil.NoSuchProcess):
        return process.memory_info().rss, process.num_fds(), process.num_threads()
    return None


@click.command(help=__doc__)
@click.option("--seconds", default=1200.0, show_default=True, help="how long")
def main(seconds: float) -> None:
    """Run and print; exits with 1 if anything grows or a request was not answered rightly."""
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        repository = copy(MODELS, Path(folder) / "repository")
        with Stack(Path(folder), ROOT / repository) as stack:
            found, trends = asyncio.run(soak(stack, seconds))
    click.echo(f"{found.sent} requests: {found.fates} {found.codes} {found.problems}")
    for one in trends:
        click.echo(
            f"{one.group}: {one.memory / 2**20:.0f} MiB on average, grew by"
            f" {one.growth / 2**20:+.1f} MiB, {one.descriptors:+.1f} descriptors,"
            f" {one.threads:+.1f} threads, {one.processes:+.1f} processes"
            f"{' - GROWS' if one.grows else ''}"
        )
    sys.exit(not found.balanced or any(one.grows for one in trends))


if __name__ == "__main__":
    main()
