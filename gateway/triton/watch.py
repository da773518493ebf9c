"""Watches one replica: probes that it answers and, beside that, has it serve what is wanted."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog

from gateway.errors import GatewayError, TritonUnreachable
from gateway.triton.inference import Liveness, Proof
from gateway.triton.model_control import LoadedVersion, ModelVersion
from gateway.triton.replica import Replica
from gateway.triton.wanted import Wanted

log = structlog.get_logger(__name__)

#: Seconds from one probe to the next, and that an answer may take. Where it takes longer `MISSES`
#: times in a row the server is down: within 2.5 s after it stopped, and not for one slow answer.
PROBE_PAUSE, PROBE_SECONDS, MISSES = 0.4, 0.8, 2
#: Seconds between probes of a server that is down, and probes without an answer after which a new
#: connection is tried: packets may have been lost on the way of the old one.
DOWN_PAUSE, RECONNECT = 0.25, 5
#: Seconds between two probes that failing calls ask for.
LEAST_PAUSE = 0.05
#: Seconds between looks at what a server serves, unless something asks for one.
REFRESH_PAUSE = 2.0


class Watch:
    """Watches `replica`. Sets `changed` when what it serves has changed."""

    def __init__(self, replica: Replica, wanted: Wanted, changed: asyncio.Event) -> None:
        self._doubt = asyncio.Event()  # asks for a probe now
        self._replica = replica
        self._wanted = wanted
        self._changed = changed
        self._told: dict[ModelVersion, LoadedVersion] = {}

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            try:
                await self._until_alive()
                await self._while_alive()
            except Exception:  # whatever a server does, keep watching
                log.exception("watching a replica failed", replica=self._replica.endpoint)
                self._replica.mark_down("watching it failed")
                await asyncio.sleep(DOWN_PAUSE)

    def note(self, error: GatewayError) -> None:
        """Look now, since a call has failed."""
        self._replica.alarm.set()
        if isinstance(error, TritonUnreachable):
            self._doubt.set()

    async def _until_alive(self) -> None:
        misses = 0
        while (proof := await self._probe()).liveness is not Liveness.ALIVE:
            self._replica.mark_down(proof.reason)
            if proof.liveness is Liveness.SILENT:
                misses += 1
                if misses % RECONNECT == 0:
                    await self._replica.reconnect()
            await asyncio.sleep(DOWN_PAUSE)

    async def _while_alive(self) -> None:
        """Keep it serving what is wanted until it does not answer any more."""
        serving = asyncio.create_task(self._keep_serving())
        try:
            proof = await self._until_lost()
            self._replica.mark_down(proof.reason)
            self._changed.set()
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
        # Calls in progress are sent elsewhere at once instead of waiting for their deadline.
        await self._replica.reconnect()

    async def _until_lost(self) -> Proof:
        misses = 0
        seen = -1
        while True:
            if not misses:
                with suppress(TimeoutError):
                    async with asyncio.timeout(PROBE_PAUSE):
                        await self._doubt.wait()
            doubted, answers = self._doubt.is_set(), self._replica.inference.answers
            self._doubt.clear()
            if answers != seen and not doubted:  # calls were answered since: proof enough
                misses, seen = 0, answers
                continue
            proof = await self._probe()
            if proof.liveness is Liveness.ALIVE:
                misses = 0
                await asyncio.sleep(LEAST_PAUSE)
                continue
            misses += 1
            if proof.liveness is Liveness.REFUSED or misses == MISSES:
                return proof

    async def _probe(self) -> Proof:
        return await self._replica.probe(PROBE_SECONDS)

    async def _keep_serving(self) -> None:
        replica = self._replica
        while True:
            await self._wanted.gathered()
            replica.alarm.clear()
            try:
                await replica.refresh(dict(self._wanted.versions))
            except Exception:
                log.exception("checking a replica failed", replica=replica.endpoint)
            self._tell()
            with suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_PAUSE):
                    await replica.alarm.wait()
            self._tell()  # a load may have ended

    def _tell(self) -> None:
        """Set `changed` if what is ready is not what it was."""
        if self._replica.ready != self._told:
            self._told = dict(self._replica.ready)
            self._changed.set()
