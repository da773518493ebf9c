"""Forks processes and keeps them running.

Forked and not spawned: the parent has imported the framework (torch: 300 MB, two seconds) and
every child shares those pages. The parent runs nothing else and has no threads, as a fork needs it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
import traceback
from collections.abc import Callable, Mapping

#: Seconds before a process that died young is started again.
PAUSE = 0.5
#: Seconds that children get to end before they are killed.
GRACE = 10
PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15
ENDING = (signal.SIGTERM, signal.SIGINT)

Main = Callable[[], None]


class Family:
    """The parent of processes, by name."""

    def __init__(self, mains: Mapping[str, Main]) -> None:
        self._mains = mains
        self._running: dict[int, tuple[str, float]] = {}
        self._ending = False

    def run(self) -> None:
        """Run all of them until SIGTERM or SIGINT; returns when none is left."""
        for number in ENDING:
            signal.signal(number, self._end)
        signal.signal(signal.SIGALRM, lambda *_: self._send(signal.SIGKILL))
        for name in self._mains:
            self._start(name, pause=0)
        while self._running:
            pid, status = os.wait()
            name, started = self._running.pop(pid)
            if not self._ending:
                print(f"{name} ended with {os.waitstatus_to_exitcode(status)}", flush=True)
                self._start(name, pause=PAUSE if time.monotonic() - started < 2 * PAUSE else 0)

    def _start(self, name: str, pause: float) -> None:
        # A signal between the fork and the note of it would miss the child.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        if pid := os.fork():
            self._running[pid] = name, time.monotonic()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
            return
        code = 1
        try:
            for number in (*ENDING, signal.SIGALRM):
                signal.signal(number, signal.SIG_DFL)
            libc = ctypes.CDLL(None)
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            libc.prctl(PR_SET_NAME, name.encode())  # for `ps`, which shows 15 characters
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
            time.sleep(pause)
            self._mains[name]()
            code = 0
        except BaseException:  # noqa: BLE001 - nothing of the parent's may run in a child
            traceback.print_exc()
        finally:
            os._exit(code)

    def _end(self, *_: object) -> None:
        self._ending = True
        self._send(signal.SIGTERM)
        signal.alarm(GRACE)

    def _send(self, number: signal.Signals) -> None:
        for pid in self._running:  # not waited for yet: the number is still theirs
            os.kill(pid, number)
