"""More requests than the machine can answer: who is answered, who is refused, and how soon."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple

import psutil

from loadtests.chaos.ledger import LATE, Account, Fate, Sent, account, quantile
from loadtests.chaos.traffic import Source, Traffic
from loadtests.load.stack import Stack

#: Users who measure the capacity: enough to keep the machine busy.
USERS = 32
#: Requests a second of another model, beside.
BESIDE = 20.0
#: Seconds within which the full rate must be back.
RECOVERY = 2.0


class Options(NamedTuple):
    """How many times the capacity comes, for how long, and of what kind of requests."""

    model: str = "minilm"
    factor: float = 5.0
    seconds: float = 60.0
    rows: int = 1
    deadline: float = 5.0
    fresh: bool = False
    obedient: bool = False


class Overload(NamedTuple):
    """What was measured; rates in requests a second, latencies and CPU in seconds."""

    options: Options
    capacity: float
    offered: float
    goodput: float
    late: float
    account: Account
    retry_after: tuple[int, int, int]
    returned: Account
    refusal_cpu: float
    recovered: float
    beside: tuple[float, float]
    memory: tuple[int, int]

    @property
    def rows(self) -> dict[str, str]:
        """The figures, by what they say."""
        least, median, most = self.retry_after
        return {
            "capacity, requests/s": f"{self.capacity:.0f}",
            "offered, requests/s": f"{self.offered:.0f}",
            "goodput / capacity": f"{self.goodput / self.capacity:.2f}",
            "admitted that missed their deadline": f"{self.late:.2%}",
            "p99 of refusals, ms": f"{self.account.refusal_p99 * 1000:.0f}",
            "Retry-After, least, median, most, s": f"{least}, {median}, {most}",
            "of those who obeyed it, answered": _share(self.returned),
            "gateway CPU of a refusal, ms": f"{self.refusal_cpu * 1000:.2f}",
            "rate right after / capacity": f"{self.recovered / self.capacity:.2f}",
            "p99 of another model at 1x and now, ms": " and ".join(
                f"{each * 1000:.0f}" for each in self.beside
            ),
            "gateway memory before and after, MiB": " and ".join(
                f"{size >> 20}" for size in self.memory
            ),
            "wrong or lost": str(
                sum(self.account.fates.get(f, 0) for f in (Fate.WRONG, Fate.LOST))
            ),
        }


async def measure(stack: Stack, options: Options) -> Overload:
    """Measure the capacity, overload, and see how it is afterwards."""
    model, _, seconds, rows, deadline, fresh, obedient = options
    usual = Source(model, users=USERS, rows=rows, deadline=30.0, fresh=fresh)
    other = Source("tumor", rate=BESIDE, deadline=30.0)
    await _run(stack, 3.0, usual)
    processor = _cpu(stack)
    calm = await _run(stack, 8.0, usual, other)
    each = (_cpu(stack) - processor) / max(1, len(calm.sent))
    capacity = _answered(calm.sent, model) / 8.0
    offered = options.factor * capacity
    before, processor = _memory(stack), _cpu(stack)
    flood = Source(model, offered, rows=rows, deadline=deadline, fresh=fresh, obedient=obedient)
    busy = await _run(stack, seconds, flood, other)
    processor = _cpu(stack) - processor
    after = await _run(stack, RECOVERY, usual)
    mine = [one for one in busy.sent if one.model == model]
    summary = account(mine)
    good, refused = _answered(busy.sent, model), summary.codes.get("overloaded", 0)
    late = summary.codes.get(LATE, 0)
    told = sorted(one.retry_after for one in mine if one.retry_after) or [0]
    return Overload(
        options,
        capacity,
        len(mine) / seconds,
        good / seconds,
        late / max(1, good + late),
        summary,
        (told[0], told[len(told) // 2], told[-1]),
        account(busy.returned),
        max(0.0, processor - each * (good + BESIDE * seconds)) / max(1, refused),
        _answered(after.sent, model) / RECOVERY,
        (_p99(calm.sent, "tumor"), _p99(busy.sent, "tumor")),
        (before, _memory(stack)),
    )


async def _run(stack: Stack, seconds: float, *sources: Source) -> Traffic:
    traffic = Traffic(stack.host, stack.port)
    async with traffic.flowing(*sources):
        await asyncio.sleep(seconds)
        until = time.perf_counter()
    # A closed loop's last answers come after the window.
    if any(source.users for source in sources):
        traffic.sent = [one for one in traffic.sent if one.at + one.seconds <= until]
    return traffic


def _answered(sent: Sequence[Sent], model: str) -> int:
    return sum(one.fate is Fate.RIGHT and one.model == model for one in sent)


def _p99(sent: Sequence[Sent], model: str) -> float:
    right = [one.seconds for one in sent if one.model == model and one.fate is Fate.RIGHT]
    return quantile(right, 0.99)


def _cpu(stack: Stack) -> float:
    times = (psutil.Process(pid).cpu_times() for pid in stack.groups()["gateway"])
    return sum((each.user + each.system for each in times), 0.0)


def _memory(stack: Stack) -> int:
    return sum(psutil.Process(pid).memory_info().rss for pid in stack.groups()["gateway"])


def _share(returned: Account) -> str:
    return f"{returned.fates.get(Fate.RIGHT, 0) / returned.sent:.2f}" if returned.sent else "-"
