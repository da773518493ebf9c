"""Compares a worker that comes up later with the first one, which has been verified."""

from __future__ import annotations

import msgspec
from gateway_preprocessor import wire

from gateway import differences
from gateway.preprocessing.connection import WorkerConnection


async def differs(
    connection: WorkerConnection, identity: wire.Identity, known: wire.Identity, seconds: float
) -> str:
    """Return how a worker differs from the first one, in identity or golden tensors.

    Raises WorkerLost, also if it does not reply within `seconds`.
    """
    if msgspec.structs.replace(identity, id=known.id, pid=known.pid) != known:
        return "a worker started in a changed environment"
    request = wire.Prepare(0, [golden.payload for golden in known.goldens])
    reply = await connection.ask(request, seconds)
    if not isinstance(reply, wire.Prepareds):
        return "a worker gave a reply of the wrong kind"
    for golden, item in zip(known.goldens, map(wire.prepared_of, reply.items), strict=True):
        if isinstance(item, Exception):
            return f"a worker fails on golden case {golden.name!r}: {item}"
        if told := differences.of_tensors(golden, item.tensors):
            return f"a worker differs on golden case {golden.name!r}: {told}"
    return ""
