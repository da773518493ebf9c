"""The load generator: a process of its own, raw sockets on uvloop, every answer judged.

`python -m loadtests.load.generator` reads a Plan (JSON) and writes a Window. It sends the next
request first and judges the answer then.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time

import msgspec
import uvloop

from loadtests.load.clock import Clock
from loadtests.load.loops import Closed, loop
from loadtests.load.plan import Plan, Window

#: Seconds beyond the window's end that every user's first or last answer may take.
PATIENCE = 60
POLL = 0.02


async def measure(plan: Plan) -> Window:
    """Run one window: warm up, measure, let what is under way finish."""
    loops = [loop(stream, plan) for stream in plan.streams]
    gc.freeze()  # thousands of requests, written once: nothing to look through again
    for each in loops:
        await each.start()
    await asyncio.sleep(plan.warm_up)
    own = {"generator": [os.getpid()]}
    clock, started = Clock(plan.watched | own), time.perf_counter()
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
