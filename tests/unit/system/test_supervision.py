"""Supervision: children that end, that cannot be started, that are given up or stopped."""

from __future__ import annotations

import asyncio
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gateway.system.supervision import Backoff, ChildState, ChildStatus, Supervisor

BACKOFF = Backoff(first=0.02, longest=0.05, stable=10.0)
ENDS = "raise SystemExit(3)"
STAYS = "import time; time.sleep(60)"
DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(60)
"""


class Child:
    """A child that runs these programs one after the other, the last one for ever."""

    def __init__(self, *programs: str | Exception, **options: Any) -> None:
        self.starts: list[float] = []
        self.ends: list[ChildStatus] = []
        self.processes: list[Process] = []
        self._programs = programs
        self.supervisor = Supervisor("child", self._launch, BACKOFF, ended=self._ended, **options)

    @property
    def state(self) -> ChildState:
        return self.supervisor.status.state

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.005)

    async def _launch(self) -> Process:
        program = self._programs[min(len(self.starts), len(self._programs) - 1)]
        self.starts.append(time.monotonic())
        if isinstance(program, Exception):
            raise program
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=PIPE)
        self.processes.append(process)
        return process

    async def _ended(self, process: Process | None, status: ChildStatus) -> None:
        self.ends.append(status)
        raise OSError("housekeeping failed, too")


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., Child]]:
    made: list[Child] = []

    def child(*programs: str | Exception, **options: Any) -> Child:
        made.append(Child(*programs, **options))
        return made[-1]

    yield child
    for one in made:
        await one.supervisor.stop()


async def test_a_child_that_ends_is_started_again(make: Callable[..., Child]) -> None:
    child = make(STAYS, ENDS, STAYS)
    await child.supervisor.start()
    assert child.supervisor.status == (ChildState.RUNNING, child.processes[0].pid, 0, "")
    child.processes[0].kill()
    await child.until(lambda: len(child.processes) == 3 and child.state is ChildState.RUNNING)
    assert child.ends == [
        (ChildState.RESTARTING, None, 1, "child was ended by SIGKILL"),
        (ChildState.RESTARTING, None, 2, "child exited with code 3"),
    ]
    assert child.supervisor.status == (ChildState.RUNNING, child.processes[2].pid, 2, "")


async def test_a_start_that_fails_is_tried_again(make: Callable[..., Child]) -> None:
    child = make(OSError("no more processes"), OSError("no more processes"), STAYS)
    child.supervisor.supervise()
    await child.until(lambda: child.state is ChildState.RUNNING)
    assert [(end.state, end.reason) for end in child.ends] == [
        (ChildState.RESTARTING, "no more processes")
    ] * 2
    first, second, third = child.starts
    assert second - first >= BACKOFF.first
    assert third - second >= 2 * BACKOFF.first  # ever more slowly


async def test_the_first_failure_is_raised_where_asked(make: Callable[..., Child]) -> None:
    child = make(OSError("no such program"))
    with pytest.raises(OSError, match="no such program"):
        await child.supervisor.start()
    assert child.supervisor.status == (ChildState.STOPPED, None, 0, "no such program")


async def test_it_gives_up_when_told_to(make: Callable[..., Child]) -> None:
    child = make(ENDS, attempts=3)
    child.supervisor.supervise()
    await child.until(lambda: child.state is ChildState.FAILED)
    assert child.supervisor.status == (ChildState.FAILED, None, 2, "child exited with code 3")
    assert len(child.starts) == 3


async def test_a_stable_run_forgives_what_was_before(make: Callable[..., Child]) -> None:
    child = make(ENDS, ENDS, STAYS, ENDS, ENDS, STAYS, attempts=3)
    child.supervisor._backoff = BACKOFF._replace(stable=0.5)
    child.supervisor.supervise()
    await child.until(lambda: len(child.processes) == 3)
    await asyncio.sleep(0.6)
    child.processes[2].kill()
    await child.until(lambda: len(child.processes) == 5)  # that one and two more did not end it
    assert child.state is not ChildState.FAILED


async def test_a_child_that_stops_when_asked(make: Callable[..., Child]) -> None:
    child = make(STAYS)
    await child.supervisor.start()
    await child.supervisor.stop(grace=20.0)
    assert child.processes[0].returncode == -15
    assert child.ends == [(ChildState.STOPPED, None, 0, "stopped")]


async def test_a_child_that_does_not_listen_is_killed(make: Callable[..., Child]) -> None:
    child = make(DEAF)
    await child.supervisor.start()
    assert await child.processes[0].stdout.readline()
    await child.supervisor.stop(grace=0.2)
    assert child.processes[0].returncode == -9
    assert child.state is ChildState.STOPPED
