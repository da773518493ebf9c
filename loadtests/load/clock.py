"""CPU time of groups of processes within a window."""

from __future__ import annotations

import psutil


class Clock:
    """CPU seconds of groups of processes, and of all others of the machine.

    A process that has ended meanwhile is left out of both readings.
    """

    def __init__(self, watched: dict[str, list[int]]) -> None:
        self._groups = {
            name: [psutil.Process(pid) for pid in pids] for name, pids in watched.items()
        }
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
