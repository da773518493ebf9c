"""How many cores there are to use, and the settings that follow from them.

A container's CPU quota counts like missing cores: sized for all of the host's, a gateway would be
throttled for most of each period.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from gateway.settings import Settings

#: Calls in flight beside those that the cores work on.
SPARE_CALLS = 2
#: Workers of a preprocessor where nothing else is set: more hardly help, and each takes memory.
MOST_WORKERS = 2


def cores(cgroups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """Return how many cores this process may use: by affinity and by CPU quota (cgroup v1, v2).

    A quota holds for a group and all groups below it, so the least one counts. Formats: the
    kernel's `admin-guide/cgroup-v2.rst` (cpu.max) and `scheduler/sched-bwc.rst` (cpu.cfs_*_us).
    """
    return min([float(len(os.sched_getaffinity(0))), *_quotas(cgroups, own)])


def most_calls(settings: Settings) -> int:
    """Return the most short calls in flight from this process; 0 where nothing bounds them.

    The embedded Triton's cores are known: as many calls keep them busy, two more are on
    their way, and several gateways share them.
    """
    if settings.max_calls or settings.triton:
        return settings.max_calls
    return math.ceil((cores() + SPARE_CALLS) / settings.processes)


def workers(settings: Settings) -> int:
    """Return the number of worker processes of each isolated preprocessor."""
    return settings.workers or max(1, min(MOST_WORKERS, math.floor(cores())))


def _quotas(cgroups: Path, own: Path) -> Iterator[float]:
    try:
        lines = own.read_text().splitlines()
    except OSError:  # not Linux's usual /proc
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "cpu" in controllers.split(",") or not controllers:
            # In a container the path may be the host's: only the mounted root is there then.
            for group in (PurePosixPath(path), *PurePosixPath(path).parents):
                for mount in (controllers, "cpu", "unified", "."):
                    yield from _quota(cgroups / mount / group.relative_to("/"))


def _quota(group: Path) -> Iterator[float]:
    """Yield the quota of one group, in cores, if it has any."""
    with suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text().split()  # v2; "max" is no number
        yield int(quota) / int(period)
    with suppress(OSError, ValueError):
        microseconds = int((group / "cpu.cfs_quota_us").read_text())
        if microseconds > 0:  # -1: none
            yield microseconds / int((group / "cpu.cfs_period_us").read_text())
