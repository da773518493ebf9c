"""The load generator: a process of its own, raw sockets on uvloop, every answer judged.

`python -m loadtests.load.generator` reads a Plan (JSON) and writes a Window. It sends the next
request first and judges the answer then.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time

import msgspec
import psutil
import uvloop

from loadtests.load.loops import Closed, loop
from loadtests.load.plan import Plan, Window

#: Seconds beyond the window's end that every user's first or last answer may take.
PATIENCE = 60
POLL = 0.02


class Clock:
    """CPU seconds of groups of processes, and of all others of the machine.

    A process that has ended meanwhile is left out of both readings.
    """

    def __init__(self, watched: dict[str, list[int]]) -> None:
        own = {**watched, "generator": [psutil.Process().pid]}
        self._groups = {name: [psutil.Process(pid) for pid in pids] for name, pids in own.items()}
        self._before = self._read()
        self._busy = _busy()

    def _read(self) -> dict[str, dict[int, float]]:
        found: dict[str, dict[int, float]] = {}
        for name, processes in self._groups.items():
            spent = found.setdefault(name, {})
            for process in processes:
                try:
                    spent[process.pid] = sum(process.cpu_times()[:2])
                except psutil.NoSuchProcess:
                    continue
        return found

    def spent(self) -> dict[str, float]:
        """Return CPU seconds since the beginning, user and system."""
        now, busy = self._read(), _busy()
        found = {
            name: sum(value - self._before[name][pid] for pid, value in spent.items())
            for name, spent in now.items()
        }
        found["others"] = busy - self._busy - sum(found.values())
        return {name: round(value, 3) for name, value in found.items()}


def _busy() -> float:
    times = psutil.cpu_times()
    busy: float = times.user + times.nice + times.system
    return busy


async def measure(plan: Plan) -> Window:
    """Run one window: warm up, measure, let what is under way finish."""
    loops = [loop(stream, plan) for stream in plan.streams]
    gc.freeze()  # thousands of requests, written once: nothing to look through again
    for each in loops:
        await each.start()
    await asyncio.sleep(plan.warm_up)
    clock, started = Clock(plan.watched), time.perf_counter()
    for each in loops:
        each.record()
    await asyncio.sleep(plan.seconds)
    while any(isinstance(each, Closed) and not each.everybody_answered for each in loops):
        # Too short a window for a busy machine or for large batches: everybody has one answer.
        if time.perf_counter() - started > plan.seconds + PATIENCE:
            break
        await asyncio.sleep(POLL)
    for each in loops:
        each.stop()
    seconds, cpu = time.perf_counter() - started, clock.spent()
    async with asyncio.timeout(PATIENCE):
        for each in loops:
            await each.idle()
    return Window(seconds, cpu, {each.stream.name: each.tally for each in loops})


def main() -> None:
    """Do what the plan says."""
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(measure(plan))))


if __name__ == "__main__":
    main()
