"""One fault under load: what came of every request, and when the gateway noticed and recovered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from loadtests.chaos.faults import Fault
from loadtests.chaos.ledger import LATE, Account, Fate, Sent, account
from loadtests.chaos.target import Look, Target, small_disk
from loadtests.chaos.traffic import Source, Traffic
from loadtests.load.stack import Stack, copy

#: Seconds before the fault, from the end of its cause until all must be as before, and after that.
CALM, MENDS, AFTER = 3.0, 5.0, 3.0
#: Seconds within which /readyz must name a dead part.
NAMED = 5.0
#: Seconds within which a request is refused whose cause is known.
REFUSED = 1.0
#: Debian's package libfaketime.
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
MODELS = ("minilm", "langid", "digits", "tumor")
SOURCES = (
    Source("minilm", rate=12),
    Source("langid", rate=30),
    Source("digits", rate=20),
    Source("tumor", rate=30),
    Source("langid", rate=2, rows=40),
)


class Trial(NamedTuple):
    """What was seen; seconds since the fault, or since the end of its cause.

    `named` is None if /readyz never told of it, `mended` if it was never well again. `slowest` is
    the longest that a refusal took whose cause had been named before. `after` are the requests that
    were sent when all should have been as before.
    """

    fault: Fault
    seconds: float
    all: Account
    after: Account
    named: float | None
    mended: float | None
    slowest: float
    told: list[str]

    @property
    def failures(self) -> list[str]:
        """What is not as it should be; nothing if the gateway survived."""
        found = []
        if wrong := self.all.fates.get(Fate.WRONG):
            found.append(f"{wrong} wrong answers: {self.all.problems}")
        if (lost := self.all.fates.get(Fate.LOST)) and not self.fault.cuts:
            found.append(f"{lost} requests lost: {self.all.problems}")
        if self.mended is None or self.mended > MENDS:
            found.append("not well in time")
        if self.after.fates.keys() - {Fate.RIGHT}:
            found.append(f"still failing: {self.after.fates} {self.after.codes}")
        if self.slowest > REFUSED:
            found.append(f"a refusal took {self.slowest:.1f} s although its cause was known")
        return found


@asynccontextmanager
async def target(fault: Fault, folder: Path) -> AsyncIterator[Target]:
    """Start what is to be broken."""
    async with AsyncExitStack() as stack:
        run_dir = folder / "run"
        if fault.small:
            await stack.enter_async_context(small_disk(run_dir, fault.small))
        run_dir.mkdir(parents=True, exist_ok=True)
        repository = copy(MODELS, folder / "repository")
        variables = {"GATEWAY_PROCESSES": str(fault.processes)}
        if fault.fakes_time:
            (folder / "clock").write_text("+0")
            variables |= {
                "LD_PRELOAD": str(FAKETIME),
                "FAKETIME_TIMESTAMP_FILE": str(folder / "clock"),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        started = await asyncio.to_thread(Stack(run_dir, repository, variables).__enter__)
        stack.callback(started.__exit__, None, None, None)
        yield Target(started, folder)


async def attempt(fault: Fault, folder: Path) -> Trial:
    """Bring the fault about under load."""
    async with target(fault, folder) as broken:
        stack = broken.stack
        traffic = Traffic(stack.host, stack.port)
        async with broken.watched(), traffic.flowing(*SOURCES):
            await asyncio.sleep(CALM)
            began = time.perf_counter()
            await fault.bring(broken)
            ended = time.perf_counter()
            await asyncio.sleep(MENDS + AFTER)
        return judged(fault, traffic.sent, broken.looks, began, ended)


def judged(fault: Fault, sent: list[Sent], looks: list[Look], began: float, ended: float) -> Trial:
    """Judge what was seen of a fault between `began` and `ended` (`time.perf_counter`)."""
    ill = [look for look in looks if look.at >= began and not look.well]
    named = ill[0].at - began if ill else None
    # Well at last: after the last look that was not.
    last = max([look.at for look in ill if look.at >= ended], default=ended)
    well = [look.at for look in looks if look.at > last and look.well]

    def known(model: str) -> float:
        """Return when a release of the model was told to be out of order: it is not waited for."""
        prefix = f"{model}/"
        return next((o.at for o in ill if any(p.startswith(prefix) for p in o.problems)), ended)

    told = sorted({name for look in ill for name in look.problems})
    refused = [
        one.seconds
        for one in sent
        if one.fate is Fate.REFUSED and known(one.model) < one.at < ended and one.code != LATE
    ]
    return Trial(
        fault,
        ended - began,
        account(sent),
        account(one for one in sent if one.at > ended + MENDS),
        named,
        well[0] - ended if well else None,
        max(refused, default=0.0),
        told,
    )
