"""Who used the processors: the stack under load, its load, and everybody else."""

from __future__ import annotations

from typing import NamedTuple

import psutil


class Usage(NamedTuple):
    """CPU seconds so far: of the stack's processes, of this one, and of the whole machine."""

    stack: float
    own: float
    machine: float

    @classmethod
    def read(cls, gateway: psutil.Process) -> Usage:
        """Read them; the stack is the gateway with all its descendants."""
        busy = psutil.cpu_times()
        stack = [gateway, *gateway.children(recursive=True)]
        return cls(
            sum(_seconds(process) for process in stack),
            _seconds(psutil.Process()),
            busy.user + busy.nice + busy.system,
        )

    def since(self, before: Usage) -> Usage:
        """Return what was used since an earlier reading."""
        return Usage(*(now - then for now, then in zip(self, before, strict=True)))

    def others(self, seconds: float) -> float:
        """Return the share of the machine's processors that others had in so many seconds."""
        rest = self.machine - self.stack - self.own
        return max(0.0, rest) / seconds / (psutil.cpu_count() or 1)


def _seconds(process: psutil.Process) -> float:
    return float(sum(process.cpu_times()[:2]))
