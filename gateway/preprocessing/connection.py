"""One gateway's connection to one worker: requests out, replies in, in any order."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog
from gateway_preprocessor import wire

log = structlog.get_logger(__name__)

#: Seconds between two attempts to reach a worker that is starting.
RETRY = 0.05
ReplyT = TypeVar("ReplyT", bound=wire.Reply)


class WorkerLost(ConnectionError):
    """The worker died, hung or hung up before it replied."""


class WorkerHung(WorkerLost):
    """The worker did not reply in time, and was killed for it."""


class NoWorker(WorkerLost):
    """There is no worker to ask."""


class WorkerConnection:
    """Connects to the worker behind `socket`, again and again, until closed.

    `met` is given the worker's identity after each (re)connection and says whether to use it.
    """

    def __init__(
        self, socket: Path, met: Callable[[WorkerConnection, wire.Identity], Awaitable[bool]]
    ) -> None:
        self.socket = socket
        self.waiting: dict[int, asyncio.Future[wire.Reply]] = {}
        self.connected = False
        self._met = met
        self._pid = 0
        self._ids = itertools.count(1)
        self._frames: wire.Frames | None = None
        self._decode = msgspec.msgpack.Decoder(wire.Reply).decode
        self._task = asyncio.create_task(self._run())

    async def ask(self, request: wire.Request, reply: type[ReplyT], seconds: float) -> ReplyT:
        """Send a request (its id is set here) and wait for its reply.

        Raises WorkerLost; a worker that does not reply within `seconds` is killed.
        """
        if self._frames is None:
            raise WorkerLost("not connected")
        number = next(self._ids)
        future: asyncio.Future[wire.Reply] = asyncio.get_running_loop().create_future()
        self.waiting[number] = future
        try:
            self._frames.send(msgspec.structs.replace(request, id=number))
            answer = await self._in_time(future, seconds)
        except ConnectionError as error:
            self.connected = False
            raise WorkerLost(str(error)) from None
        finally:
            self.waiting.pop(number, None)
        if not isinstance(answer, reply):
            raise WorkerLost(f"a {type(answer).__name__} instead of a {reply.__name__}")
        return answer

    async def close(self) -> None:
        """Hang up for good."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _in_time(self, future: asyncio.Future[wire.Reply], seconds: float) -> wire.Reply:
        """Wait for a reply; kill the worker that is too slow. Raises WorkerHung."""
        timer = asyncio.get_running_loop().call_later(seconds, self._too_late, future, seconds)
        try:
            return await future
        finally:
            timer.cancel()

    def _too_late(self, future: asyncio.Future[wire.Reply], seconds: float) -> None:
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
        identity = await self.ask(wire.Introduce(0), wire.Identity, 60)
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
        future = self.waiting.get(reply.id)
        if future and not future.done():
            future.set_result(reply)

    def _hang_up(self) -> None:
        self.connected = False
        if self._frames:
            self._frames.close()
            self._frames = None
        for future in self.waiting.values():
            if not future.done():
                future.set_exception(WorkerLost("the worker died"))

    def _kill(self, seconds: float) -> None:
        self.connected = False  # at once: nobody else may ask a worker that is being killed
        if self._pid:
            log.error("worker hangs: killed", pid=self._pid, seconds=seconds)
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
