"""Notices that an embedded Triton hangs: its process lives, but does not answer any more."""

from __future__ import annotations

import asyncio

from gateway.triton.channel import Server
from gateway.triton.inference import Inference, Liveness

#: Seconds that an answer may take, and between two probes.
PROBE_SECONDS, PAUSE = 2.0, 0.5
#: Probes in a row without an answer after which the server hangs: some 12 s. Long enough for a
#: machine that swaps; counted, so that seconds in which this process itself stood still are not.
MISSES = 5


async def until_hung(endpoint: str) -> None:
    """Return once the server at `endpoint` hangs; cancel it if the process ends."""
    server = Inference(Server(endpoint))
    misses = 0
    try:
        while misses < MISSES:
            await asyncio.sleep(PAUSE)
            proof = await server.probe(PROBE_SECONDS)
            misses = 0 if proof.liveness is Liveness.ALIVE else misses + 1
    finally:
        await server.close()
