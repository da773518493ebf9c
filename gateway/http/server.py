"""Tornado's HTTP server and event loop, with less work per request.

Tornado's own timeouts cost each request a timer and a chain of futures; here a request only notes
when it must have arrived, and one timer checks all connections.

Connections are bounded, and so is how long each may be idle, send its body or take its answer. A
process without descriptors leaves new connections waiting for a moment, instead of being told of
them over and over.

A Tornado stream stops watching its socket once it has a request's head, and resumes when it has
read the body, a moment later; each time uvloop drops its handle and makes another, with six system
calls. Here a socket stays watched until something arrives that no reader waits for.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, cast

import structlog
from tornado.http1connection import HTTP1Connection, HTTP1ServerConnection
from tornado.httpserver import HTTPServer
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream
from tornado.platform.asyncio import AsyncIOMainLoop
from tornado.web import Application

from gateway.settings import Settings
from gateway.system import limits
from gateway.telemetry import metrics

log = structlog.get_logger(__name__)
#: Seconds between checks for overdue connections, and for answers still being written.
LOOK_SECONDS = 1.0
FLUSH_PAUSE = 0.01
#: Seconds without new connections after there was no descriptor for one.
ACCEPT_PAUSE = 0.5


class Bounds(NamedTuple):
    """The most connections, and for how many seconds each may owe something.

    A whole request's head, or another request (`idle`); its body, once the head has arrived; taking
    an answer (`write`).
    """

    connections: int
    idle: float
    body: float
    write: float

    @classmethod
    def of(cls, settings: Settings) -> Bounds:
        """Take the operator's bounds."""
        return cls(
            limits.most_connections(settings),
            settings.idle_seconds,
            settings.body_seconds,
            settings.write_seconds,
        )


class Loop(AsyncIOMainLoop):
    """Becomes this thread's loop if created before Tornado creates its own."""

    def initialize(self, **options: Any) -> None:  # type: ignore[override]
        """Set up (Tornado's hook instead of `__init__`)."""
        self._unwanted: set[int] = set()
        super().initialize(**options)

    def add_handler(self, fd: Any, handler: Callable[..., None], events: int) -> None:
        """Watch a socket (Tornado's hook)."""
        number, _ = self.split_fd(fd)

        def unless_unwanted(fileobj: Any, seen: int) -> None:
            if seen & IOLoop.READ and number in self._unwanted:
                self._unwanted.discard(number)
                writing = IOLoop.WRITE if number in self.writers else 0
                AsyncIOMainLoop.update_handler(self, number, IOLoop.ERROR | writing)
                return
            try:
                handler(fileobj, seen)
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    raise
                self._pause(number)

        super().add_handler(fd, unless_unwanted, events)

    def _pause(self, number: int) -> None:
        """Accept no connection for a moment: none can be accepted, and they are announced on."""
        log.error("no descriptors are left: new connections wait", seconds=ACCEPT_PAUSE)
        AsyncIOMainLoop.update_handler(self, number, IOLoop.ERROR)
        self.call_later(ACCEPT_PAUSE, self._resume, number)

    def _resume(self, number: int) -> None:
        if number in self.handlers:
            AsyncIOMainLoop.update_handler(self, number, IOLoop.READ)

    def update_handler(self, fd: Any, events: int) -> None:
        """Change the events that a socket is watched for (Tornado's hook)."""
        number, _ = self.split_fd(fd)
        if events & IOLoop.READ:
            self._unwanted.discard(number)
        elif number in self.readers:
            self._unwanted.add(number)
            events |= IOLoop.READ
        super().update_handler(fd, events)

    def remove_handler(self, fd: Any) -> None:
        """Stop watching a socket (Tornado's hook)."""
        self._unwanted.discard(self.split_fd(fd)[0])
        super().remove_handler(fd)


class Patience:
    """When each connection must have sent what it owes; overdue ones are closed."""

    def __init__(self) -> None:
        self._due: dict[IOStream, float] = {}
        self._loop = asyncio.get_running_loop()
        self._looking = False

    def give(self, stream: IOStream, seconds: float) -> None:
        """Wait this long for a connection, from now."""
        self._due[stream] = self._loop.time() + seconds
        if not self._looking:
            self._looking = True
            self._loop.call_later(LOOK_SECONDS, self._look)

    def end(self, stream: IOStream) -> None:
        """Stop waiting for a connection: it has sent everything, or is gone."""
        self._due.pop(stream, None)

    def _look(self) -> None:
        now = self._loop.time()
        for stream in [stream for stream, due in self._due.items() if due <= now]:
            self.end(stream)
            stream.close()
        self._looking = bool(self._due)
        if self._looking:
            self._loop.call_later(LOOK_SECONDS, self._look)


def install_loop() -> None:
    """Make Tornado use `Loop` in this thread; call it before anything else of Tornado."""
    if IOLoop.current(instance=False) is None:
        Loop()


class Server(HTTPServer):
    """Serves an application; closes connections that keep it waiting too long."""

    def initialize(  # type: ignore[override]
        self, application: Application, bounds: Bounds, **options: Any
    ) -> None:
        """Set up (Tornado's hook instead of `__init__`); `options` are those of its server."""
        super().initialize(application, **options)
        self.conn_params.header_timeout = None
        self._bounds = bounds
        self._patience = Patience()
        self._writing: dict[IOStream, float] = {}
        self._look_for_slow_readers()

    async def flushed(self) -> None:
        """Wait until every answer has been written to its client."""
        while any(conn.stream.writing() for conn in self._connections):  # noqa: ASYNC110
            await asyncio.sleep(FLUSH_PAUSE)

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """Serve a new connection, if there is room for it (Tornado's hook)."""
        if len(self._connections) >= self._bounds.connections:
            metrics.CONNECTIONS_REFUSED.inc()
            stream.close()
            return
        super().handle_stream(stream, address)

    def stop(self) -> None:
        """Accept no more connections (Tornado's hook)."""
        super().stop()
        self._looking.cancel()

    def _look_for_slow_readers(self) -> None:
        """Close connections whose clients have not taken an answer in time."""
        loop = asyncio.get_running_loop()
        before, now = self._writing, loop.time()
        streams = [connection.stream for connection in self._connections]
        self._writing = {each: before.get(each, now) for each in streams if each.writing()}
        for stream, since in self._writing.items():
            if now - since > self._bounds.write:
                stream.close()
        self._looking = loop.call_later(LOOK_SECONDS, self._look_for_slow_readers)

    def start_request(
        self, server_conn: object, request_conn: HTTPConnection
    ) -> HTTPMessageDelegate:
        """Start to wait for a request (Tornado's hook)."""
        stream = cast("HTTP1Connection", request_conn).stream
        delegate = super().start_request(server_conn, request_conn)
        return _Awaited(delegate, stream, self._patience, self._bounds)

    def on_close(self, server_conn: object) -> None:
        """Forget a connection (Tornado's hook)."""
        super().on_close(server_conn)
        self._patience.end(cast("HTTP1ServerConnection", server_conn).stream)


class _Awaited(HTTPMessageDelegate):
    """An incoming request: limits the time for its head, then for its body."""

    def __init__(
        self, delegate: HTTPMessageDelegate, stream: IOStream, patience: Patience, bounds: Bounds
    ) -> None:
        self._delegate = delegate
        self._stream = stream
        self._patience = patience
        self._bounds = bounds
        # Passed on as they are: no call more for each part of the body.
        self.data_received = delegate.data_received  # type: ignore[method-assign]
        self.on_connection_close = delegate.on_connection_close  # type: ignore[method-assign]
        patience.give(stream, bounds.idle)

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        """Note the head and pass it on."""
        self._patience.give(self._stream, self._bounds.body)
        return self._delegate.headers_received(start_line, headers)

    def finish(self) -> None:
        """Note the end of the body and pass it on."""
        self._patience.end(self._stream)
        self._delegate.finish()
