"""CPU time and memory of the gateway's processes: its own, and the workers that it started."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from gateway.telemetry import metrics

GATEWAY, WORKER = KINDS = ("gateway", "worker")
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
#: Fields of /proc/PID/stat (proc(5)), counted behind the command's closing parenthesis.
_USER, _SYSTEM, _RESIDENT = 11, 12, 21


class Usage:
    """Reads /proc; what a process used between the last reading and its end is lost."""

    def __init__(self) -> None:
        self._seen: dict[int, float] = {}

    def look(self, workers: Collection[int]) -> None:
        """Add what this process and these workers used since the last call."""
        memory = dict.fromkeys(KINDS, 0)
        kinds = {os.getpid(): GATEWAY} | dict.fromkeys(workers, WORKER)
        self._seen = {pid: seconds for pid, seconds in self._seen.items() if pid in kinds}
        for pid, kind in kinds.items():
            with suppress(OSError):
                text = Path(f"/proc/{pid}/stat").read_bytes()
                fields = text[text.rindex(b")") + 2 :].split()
                seconds = (int(fields[_USER]) + int(fields[_SYSTEM])) / _TICKS
                metrics.PROCESS_CPU.labels(kind).inc(seconds - self._seen.get(pid, 0.0))
                self._seen[pid] = seconds
                memory[kind] += int(fields[_RESIDENT]) * _PAGE
        for kind, size in memory.items():
            metrics.PROCESS_MEMORY.labels(kind).set(size)
