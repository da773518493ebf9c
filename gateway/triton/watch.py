"""Watches one replica: checks again and again what it serves, and has it load what is wanted."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog

from gateway.triton.replica import Replica
from gateway.triton.wanted import Wanted

log = structlog.get_logger(__name__)

#: Seconds between checks of a replica that answers, and of one that does not.
PROBE_UP = 2.0
PROBE_DOWN = 0.25


class Watch:
    """Watches `replica`: `alarm` makes it look now, and it sets `changed` when `ready` changed."""

    def __init__(self, replica: Replica, wanted: Wanted, changed: asyncio.Event) -> None:
        self.alarm = asyncio.Event()
        self._replica = replica
        self._wanted = wanted
        self._changed = changed

    async def run(self) -> None:
        """Watch until cancelled."""
        replica = self._replica
        while True:
            await self._wanted.gathered()
            self.alarm.clear()
            before = dict(replica.ready)
            try:
                await replica.refresh(dict(self._wanted.versions))
            except Exception:  # whatever a server does, keep watching
                log.exception("checking a replica failed", replica=replica.endpoint)
                replica.mark_down("checking it failed")
            if replica.ready != before:
                self._changed.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(PROBE_UP if replica.up else PROBE_DOWN):
                    await self.alarm.wait()
