"""The worker process: runs one preprocessor for every gateway of the host.

`python -m gateway_preprocessor.worker DISTRIBUTION SOCKET` in the preprocessor's environment.
It serves its socket until it is told to stop or its parent is gone.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import platform
import signal
import sys
from contextlib import suppress
from importlib import metadata
from typing import Any

import msgspec

from gateway_preprocessor import goldens, wire
from gateway_preprocessor.description import describe
from gateway_preprocessor.installed import find
from gateway_preprocessor.preprocessor import Preprocessor
from gateway_preprocessor.runner import Runner

PR_SET_PDEATHSIG = 1


class Worker:
    """Answers the requests of all connections, one after the other: the work is CPU-bound."""

    def __init__(self, distribution: str) -> None:
        version, factory = find(distribution)
        self._runner = Runner(factory())
        self._identity = identity(distribution, version, factory)
        self._decode = msgspec.msgpack.Decoder(wire.Request).decode

    def converse(self) -> wire.Frames:
        """Serve one gateway until it hangs up."""

        def answer(frame: memoryview) -> None:
            try:
                reply = self._answer(self._decode(frame))
            except msgspec.MsgspecError:
                frames.close()  # not a gateway
                return
            with suppress(ConnectionError):  # it has gone meanwhile
                frames.send(reply)

        frames = wire.Frames(answer, lambda: None)
        return frames

    def _answer(self, request: wire.Request) -> wire.Reply:
        if isinstance(request, wire.Prepare):
            items = self._runner.prepare(request.payloads)
            return wire.Prepareds(request.id, wire.prepared_items(items))
        if isinstance(request, wire.Finish):
            results = self._runner.finish(wire.arrays_of(request.outputs), request.contexts)
            return wire.Results(
                request.id,
                [item if isinstance(item, bytes) else wire.Failed(repr(item)) for item in results],
            )
        return msgspec.structs.replace(self._identity, id=request.id)


def identity(
    distribution: str, version: str, factory: type[Preprocessor[Any, Any, Any]]
) -> wire.Identity:
    """Say what runs in this process. Raises FileNotFoundError without golden cases."""
    return wire.Identity(
        id=0,
        pid=os.getpid(),
        distribution=f"{distribution}=={version}",
        python=platform.python_version(),
        installed=installed(),
        description=describe(factory),
        goldens=goldens.load(factory),
    )


def installed() -> dict[str, str]:
    """Return every installed distribution of this interpreter, normalised name → version."""
    return {
        str(item.metadata["Name"]).lower().replace("_", "-").replace(".", "-"): item.version
        for item in metadata.distributions()
    }


async def serve(distribution: str, socket: str) -> None:
    """Serve `socket` until SIGTERM."""
    worker = Worker(distribution)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = await asyncio.get_running_loop().create_unix_server(worker.converse, socket)
    async with server:
        await stop.wait()


def main(arguments: list[str]) -> None:
    """Run the worker named on the command line."""
    distribution, socket = arguments
    # A worker without its gateway is of no use; this holds even where the gateway is killed.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    asyncio.run(serve(distribution, socket))


if __name__ == "__main__":
    main(sys.argv[1:])
