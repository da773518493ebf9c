"""The faults. Each is brought about for real, and returns once its cause has ended."""

from __future__ import annotations

import asyncio
import errno
import resource
import shutil
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import psutil

from loadtests.chaos.target import Target, kill, paused

#: Seconds for which a cause lasts that has no end of its own.
LASTS = 10.0
#: Seconds for which Triton hangs before it goes on by itself; longer, and it would be replaced.
HANGS = 8.0


class Fault(NamedTuple):
    """A fault and what it is called in the report.

    `processes` are gateway processes; `small` makes the working folder a disk of so many bytes.
    `cuts` says that connections are cut, whose requests nobody can answer. `fakes_time` has the
    gateway take the time of day from `Target.clock`, which needs libfaketime.
    """

    name: str
    what: str
    bring: Callable[[Target], Awaitable[None]]
    processes: int = 1
    small: int = 0
    cuts: bool = False
    fakes_time: bool = False


async def worker_killed(target: Target) -> None:
    """Kill one of langid's workers."""
    kill(target.processes("workers", part="langid")[0])


async def workers_killed(target: Target) -> None:
    """Kill all workers of langid."""
    for process in target.processes("workers", part="langid"):
        kill(process)


async def worker_hung(target: Target) -> None:
    """Stop one of langid's workers until it has been replaced."""
    process = target.processes("workers", part="langid")[0]
    async with paused(process):
        await target.until(lambda: not process.is_running())


async def worker_folder_deleted(target: Target) -> None:
    """Delete the workers' folders, and kill a worker of each."""
    await asyncio.to_thread(shutil.rmtree, target.run_dir / "workers")
    for process in target.processes("workers"):
        kill(process)


async def instance_killed(target: Target) -> None:
    """Kill one of minilm's two instances; the cause ends when the model has others."""
    before = target.processes("instances", part="minilm/1/")
    kill(before[0])
    await target.until(lambda: _new(target, before, "minilm/1/") == len(before))


async def instance_hung(target: Target) -> None:
    """Stop one of minilm's two instances until the model has others, a minute at most."""
    before = target.processes("instances", part="minilm/1/")
    async with paused(before[0]):
        await target.until(lambda: _new(target, before, "minilm/1/") == len(before))


async def triton_killed(target: Target) -> None:
    """Kill Triton; the cause ends when its successor has as many instances."""
    before = target.processes("instances")
    kill(target.processes("triton")[0])
    await target.until(lambda: _new(target, before) == len(before))


async def triton_hung(target: Target) -> None:
    """Stop Triton for less time than after which it is replaced."""
    async with paused(target.processes("triton")[0]):
        await asyncio.sleep(HANGS)


async def triton_hung_for_ever(target: Target) -> None:
    """Stop Triton; the cause ends when its successor has as many instances."""
    before = target.processes("instances")
    async with paused(target.processes("triton")[0]):
        await target.until(lambda: _new(target, before) == len(before))


async def gateway_killed(target: Target) -> None:
    """Kill one of the gateways that share the port."""
    kill(target.gateways()[0])


async def disk_full(target: Target) -> None:
    """Fill the working folder, log included; kill a worker and a gateway meanwhile; free it."""
    filler = target.run_dir / "filler"
    await asyncio.to_thread(_fill, filler)
    kill(target.processes("workers", part="langid")[0])
    if len(target.gateways()) > 1:
        kill(target.gateways()[0])
    await asyncio.sleep(LASTS)
    filler.unlink()


async def descriptors_exhausted(target: Target) -> None:
    """Take the gateway's free descriptors and kill a worker meanwhile; then give them back."""
    process = target.gateways()[0]
    limits = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    await asyncio.to_thread(_take_descriptors, process.pid, limits[1])
    kill(target.processes("workers", part="langid")[0])
    await asyncio.sleep(LASTS)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, limits)


async def hung_up(target: Target) -> None:
    """Move the log away and send SIGHUP."""
    log = target.run_dir / "log"
    log.rename(log.with_name("log.1"))
    target.gateways()[0].send_signal(signal.SIGHUP)
    await target.until(log.exists)


async def clock_jumps(target: Target) -> None:
    """Set the time of day an hour forward, two back, and right again."""
    for jump in ("+3600", "-3600", "+0"):
        target.clock.write_text(jump)
        await asyncio.sleep(LASTS / 2)


async def model_corrupted(target: Target) -> None:
    """Cut tumor's model file short and kill its instance; then put the file back."""
    file = target.repository / "tumor/1/model.onnx"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    kill(target.processes("instances", part="tumor")[0])
    await asyncio.sleep(LASTS)
    file.write_bytes(whole)


def _new(target: Target, before: list[psutil.Process], part: str = "") -> int:
    """Count the instances that were not there before."""
    return sum(one not in before for one in target.processes("instances", part=part))


def _take_descriptors(pid: int, hard: int) -> None:
    """Leave a process no descriptor beyond those that it has."""
    used = [int(each.name) for each in Path(f"/proc/{pid}/fd").iterdir()]
    free = next(number for number in range(len(used) + 1) if number not in used)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, hard))


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("worker-killed", "one worker killed", worker_killed),
        Fault("workers-killed", "all workers of a preprocessor killed", workers_killed),
        Fault("worker-hung", "one worker hung", worker_hung),
        Fault("folder-deleted", "the workers' folder deleted", worker_folder_deleted),
        Fault("instance-killed", "one of two instances of a model killed", instance_killed),
        Fault("instance-hung", "one of two instances of a model hung", instance_hung),
        Fault("triton-killed", "Triton killed", triton_killed),
        Fault("triton-hung", f"Triton hung for {HANGS:.0f} s", triton_hung),
        Fault("triton-stuck", "Triton hung for ever", triton_hung_for_ever),
        Fault("gateway-killed", "one of two gateways killed", gateway_killed, 2, cuts=True),
        Fault("disk-full", "disk full for log and run folder", disk_full, small=512 << 20),
        Fault(
            "disk-full-2", "the same with two gateways, one killed", disk_full, 2, 512 << 20, True
        ),
        Fault(
            "descriptors", "no descriptors left in the gateway", descriptors_exhausted, cuts=True
        ),
        Fault("hung-up", "log moved away, SIGHUP", hung_up),
        Fault("clock-jumps", "the time of day jumps by hours", clock_jumps, fakes_time=True),
        Fault("model-corrupted", "a model file cut short, its instance killed", model_corrupted),
    )
}
