"""One gateway's connection to one worker: requests out, replies in, in any order."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import structlog
from gateway_preprocessor import wire

log = structlog.get_logger(__name__)

#: Seconds between two attempts to reach a worker that is starting.
RETRY = 0.05
#: Seconds that a worker may take to identify itself.
INTRODUCE_SECONDS = 60.0


class WorkerLost(ConnectionError):
    """The worker died, hung or disconnected before it replied."""


class WorkerHung(WorkerLost):
    """The worker did not reply in time, and was killed for it."""


class NoWorker(WorkerLost):
    """No worker is connected."""


class WorkerConnection:
    """Connects, and reconnects, to the worker behind `socket` until closed.

    `met` receives the worker's identity after each connection and returns whether to use it.
    """

    def __init__(
        self, socket: Path, met: Callable[[WorkerConnection, wire.Identity], Awaitable[bool]]
    ) -> None:
        self.socket = socket
        self.waiting: dict[int, tuple[asyncio.Future[wire.Reply], asyncio.TimerHandle]] = {}
        self.connected = False
        self._met = met
        self._pid = 0
        self._ids = itertools.count(1)
        self._frames: wire.Frames | None = None
        self._decode = msgspec.msgpack.Decoder(wire.Reply).decode
        self._task = asyncio.create_task(self._run())

    def ask(self, request: wire.Request, seconds: float) -> asyncio.Future[wire.Reply]:
        """Send a request (its id is set here); the future resolves to its reply.

        It fails with WorkerLost; a worker that does not reply within `seconds` is killed.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[wire.Reply] = loop.create_future()
        number = next(self._ids)
        try:
            if self._frames is None:
                raise ConnectionError("not connected")  # noqa: TRY301
            self._frames.send(msgspec.structs.replace(request, id=number))
        except ConnectionError as error:
            self.connected = False
            future.set_exception(WorkerLost(str(error)))
        else:
            timer = loop.call_later(seconds, self._too_late, number, seconds)
            self.waiting[number] = future, timer
        return future

    async def close(self) -> None:
        """Disconnect for good."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _too_late(self, number: int, seconds: float) -> None:
        future, _ = self.waiting.pop(number)
        if not future.done():
            future.set_exception(WorkerHung(f"no reply within {seconds} s"))
        self._kill(seconds)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            lost = asyncio.Event()
            try:
                _, self._frames = await loop.create_unix_connection(
                    lambda lost=lost: wire.Frames(self._received, lost.set),  # type: ignore[misc]
                    str(self.socket),
                )
            except OSError:
                await asyncio.sleep(RETRY)
                continue
            introduction = asyncio.create_task(self._introduce())
            try:
                await lost.wait()
                log.debug("worker hung up", socket=self.socket.name)
            finally:
                introduction.cancel()
                await asyncio.gather(introduction, return_exceptions=True)
                self._hang_up()

    async def _introduce(self) -> None:
        identity = await self.ask(wire.Introduce(0), INTRODUCE_SECONDS)
        if not isinstance(identity, wire.Identity):
            raise WorkerLost(f"a {type(identity).__name__} instead of an introduction")
        self._pid = identity.pid
        self.connected = await self._met(self, identity)

    def _received(self, frame: memoryview) -> None:
        try:
            reply = self._decode(frame)
        except msgspec.MsgspecError as error:
            reason = str(error)
            log.error("not a worker", socket=self.socket.name, reason=reason)  # noqa: TRY400
            self._hang_up()
            return
        if reply.id in self.waiting:
            future, timer = self.waiting.pop(reply.id)
            timer.cancel()
            if not future.done():
                future.set_result(reply)

    def _hang_up(self) -> None:
        self.connected = False
        if self._frames:
            self._frames.close()
            self._frames = None
        waiting, self.waiting = self.waiting, {}
        for future, timer in waiting.values():
            timer.cancel()
            if not future.done():
                future.set_exception(WorkerLost("the worker died"))

    def _kill(self, seconds: float) -> None:
        self.connected = False  # immediately: no one may ask a worker that is being killed
        if self._pid:
            log.error("worker hangs: killed", pid=self._pid, seconds=seconds)
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
