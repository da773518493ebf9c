"""One gateway's connection to one worker: requests out, replies in, in any order."""

from __future__ import annotations

import asyncio
import itertools
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec
import structlog
from gateway_preprocessor import wire

from gateway.preprocessing.losses import BrokenOff, NotBegun, Wait, WorkerHung, WorkerLost

log = structlog.get_logger(__name__)

#: Seconds between two attempts to reach a worker that is starting.
RETRY = 0.05
#: Seconds from the end of a worker's connection to that of its process, if it dies.
END_SECONDS = 0.5
#: Seconds that a worker may take to identify itself.
INTRODUCE_SECONDS = 60.0
#: Seconds between two looks at how long a worker has been at its present call.
LOOK = 0.1
#: Seconds that a worker may spend on a call for which nobody waits any more.
ABANDONED_SECONDS = 2.0
#: `struct ucred` (unix(7)): process, user and group of a socket's other end.
CREDENTIALS = struct.Struct("3i")


class Question(NamedTuple):
    """A request without a reply yet: the seconds it may take, and the requests that wait for it."""

    reply: asyncio.Future[wire.Reply]
    seconds: float
    waits: Sequence[Wait]


class WorkerConnection:
    """Connects, and reconnects, to the worker behind `path` until closed.

    `met` receives the worker's identity after each connection and returns whether to use it. A
    worker takes one request after the other: it has worked on the first of `waiting` since `since`
    (`time.monotonic`). `quarantined` keeps all but suspects away from it.
    """

    def __init__(
        self, path: Path, met: Callable[[WorkerConnection, wire.Identity], Awaitable[bool]]
    ) -> None:
        self.path = path
        self.waiting: dict[int, Question] = {}
        self.since = 0.0
        self.connected = False
        self.quarantined = False
        self._met = met
        self._process: int | None = None  # a pidfd: no other process can be meant
        self._ids = itertools.count(1)
        self._frames: wire.Frames | None = None
        self._lost = asyncio.Event()
        self._looking: asyncio.TimerHandle | None = None
        self._late = 0  # the request that was late at the last look
        self._decode = msgspec.msgpack.Decoder(wire.Reply).decode
        self._task = asyncio.create_task(self._run())

    def ask(
        self, request: wire.Request, seconds: float, waits: Sequence[Wait] = ()
    ) -> asyncio.Future[wire.Reply]:
        """Send a request (its id is set here); the future resolves to its reply.

        It fails with WorkerLost. A worker is killed that has been at the request for `seconds`, or
        for `ABANDONED_SECONDS` after which all of `waits`, if there are any, are done.
        """
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[wire.Reply] = loop.create_future()
        number = next(self._ids)
        try:
            if self._frames is None:
                raise ConnectionError("not connected")  # noqa: TRY301
            self._frames.send(msgspec.structs.replace(request, id=number))
        except ConnectionError as error:
            self.connected = False
            reply.set_exception(NotBegun(str(error)))
        else:
            if not self.waiting:
                self.since = time.monotonic()
            self.waiting[number] = Question(reply, seconds, waits)
            if self._looking is None:
                self._looking = loop.call_later(LOOK, self._look)
        return reply

    async def close(self) -> None:
        """Disconnect for good."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _look(self) -> None:
        """Kill the worker if it has been at its present request for too long."""
        self._looking = None
        if not self.waiting:
            return
        number, first = next(iter(self.waiting.items()))
        seconds = time.monotonic() - self.since
        unwanted = bool(first.waits) and all(wait.done() for wait in first.waits)
        bound = min(ABANDONED_SECONDS, first.seconds) if unwanted else first.seconds
        late = seconds >= bound
        # At the second look: if this process was held up, the reply may be waiting to be read.
        if not late or self._late != number:
            self._late = number if late else 0
            self._looking = asyncio.get_running_loop().call_later(LOOK, self._look)
            return
        log.error("worker hangs: killed", worker=self.path.stem, seconds=seconds, unwanted=unwanted)
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(self._process, signal.SIGKILL)
        self._hang_up(WorkerHung(f"no reply within {bound:g} s"))

    async def _run(self) -> None:
        while True:
            self._lost = lost = asyncio.Event()
            try:
                self._frames = await self._connected(lost)
            except OSError:
                await asyncio.sleep(RETRY)
                continue
            introduction = asyncio.create_task(self._introduce())
            reason: WorkerLost = WorkerLost("the worker died")
            try:
                await lost.wait()
                self.connected = False
                log.debug("worker hung up", worker=self.path.name)
                if not await self._ends():
                    reason = BrokenOff("the worker broke off the connection; its output says why")
            finally:
                introduction.cancel()
                await asyncio.gather(introduction, return_exceptions=True)
                self._hang_up(reason)
                self._forget_process()
            await asyncio.sleep(RETRY)  # a dead worker's children may listen on

    async def _connected(self, lost: asyncio.Event) -> wire.Frames:
        """Connect; `lost` is set when the connection or the process behind it ends.

        The children of a worker share its socket, and keep it open when the worker dies. Raises
        OSError.
        """
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX) as found:
            found.setblocking(False)
            found.connect(str(self.path))
            size = CREDENTIALS.size
            credentials = found.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
            pid, _, _ = CREDENTIALS.unpack(credentials)
            if pid:  # 0: a process of another container, out of sight
                self._process = os.pidfd_open(pid)
                loop.add_reader(self._process, lost.set)
            try:
                _, frames = await loop.create_unix_connection(
                    lambda: wire.Frames(self._received, lost.set), sock=found.dup()
                )
            except BaseException:
                self._forget_process()
                raise
        return frames

    async def _ends(self) -> bool:
        """Return whether the process ends: its socket closes a moment before."""
        if self._process is None:
            return True
        for _ in range(round(END_SECONDS / RETRY)):
            if select.select([self._process], [], [], 0)[0]:
                return True
            await asyncio.sleep(RETRY)
        return False

    async def _introduce(self) -> None:
        identity = await self.ask(wire.Introduce(0), INTRODUCE_SECONDS)
        if not isinstance(identity, wire.Identity):
            raise WorkerLost(f"a {type(identity).__name__} instead of an introduction")
        self.connected = await self._met(self, identity)

    def _received(self, frame: memoryview) -> None:
        try:
            reply = self._decode(frame)
        except msgspec.MsgspecError as error:
            reason = str(error)
            log.error("not a worker", worker=self.path.name, reason=reason)  # noqa: TRY400
            self._hang_up(WorkerLost(reason))
            return
        if question := self.waiting.pop(reply.id, None):
            self.since = time.monotonic()
            if not question.reply.done():
                question.reply.set_result(reply)

    def _hang_up(self, reason: WorkerLost) -> None:
        """End the connection: the request that the worker is at fails for this reason."""
        self.connected = False  # immediately: no one may ask a worker that is being killed
        if self._frames:
            self._frames.close()
            self._frames = None
        self._lost.set()
        waiting, self.waiting = self.waiting, {}
        for position, question in enumerate(waiting.values()):
            if not question.reply.done():
                question.reply.set_exception(NotBegun(str(reason)) if position else reason)

    def _forget_process(self) -> None:
        if self._process is not None:
            asyncio.get_running_loop().remove_reader(self._process)
            os.close(self._process)
            self._process = None
