"""The number of usable cores, and the settings that follow from it.

A container's CPU quota limits the cores: sized for all cores of the host, a gateway would be
throttled for most of each period.
"""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from gateway.settings import Settings

#: Calls in flight beyond one per core.
SPARE_CALLS = 2
#: Most connections by default, and descriptors left for everything else: workers, Triton, files.
MOST_CONNECTIONS = 20_000
RESERVED = 256
#: Most workers per preprocessor by default: more hardly help, and each needs memory.
MOST_WORKERS = 2


def cores(cgroups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """Return the cores that this process may use, by affinity and CPU quota (cgroup v1, v2).

    A quota applies to a group and all groups below it, so the lowest one counts. Formats: the
    kernel's `admin-guide/cgroup-v2.rst` (cpu.max) and `scheduler/sched-bwc.rst` (cpu.cfs_*_us).
    """
    return min([float(len(os.sched_getaffinity(0))), *_quotas(cgroups, own)])


def most_calls(settings: Settings) -> int:
    """Return the most short calls in flight from this process; 0 means no limit.

    With the embedded Triton one call per core keeps the cores busy and two more are on their way;
    several gateways share that number.
    """
    if settings.max_calls or settings.triton:
        return settings.max_calls
    return math.ceil((cores() + SPARE_CALLS) / settings.processes)


def most_connections(settings: Settings) -> int:
    """Return the most client connections of this process; raises its limit of descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    usable = MOST_CONNECTIONS if hard == resource.RLIM_INFINITY else hard - RESERVED
    return settings.max_connections or max(1, min(MOST_CONNECTIONS, usable))


def workers(settings: Settings) -> int:
    """Return the number of worker processes of each isolated preprocessor."""
    return settings.workers or max(1, min(MOST_WORKERS, math.floor(cores())))


def _quotas(cgroups: Path, own: Path) -> Iterator[float]:
    try:
        lines = own.read_text().splitlines()
    except OSError:  # no Linux-like /proc
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "cpu" in controllers.split(",") or not controllers:
            # In a container the path may be the host's; then only the mounted root exists.
            for group in (PurePosixPath(path), *PurePosixPath(path).parents):
                for mount in (controllers, "cpu", "unified", "."):
                    yield from _quota(cgroups / mount / group.relative_to("/"))


def _quota(group: Path) -> Iterator[float]:
    """Yield the quota of one group, in cores, if it has one."""
    with suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text().split()  # v2; "max" is no number
        yield int(quota) / int(period)
    with suppress(OSError, ValueError):
        microseconds = int((group / "cpu.cfs_quota_us").read_text())
        if microseconds > 0:  # -1: none
            yield microseconds / int((group / "cpu.cfs_period_us").read_text())
