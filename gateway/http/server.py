"""Tornado's HTTP server and event loop, with less work per request.

Tornado's own timeouts cost each request a timer and a chain of futures; here a request only notes
when it must have arrived, and one timer checks all connections.

A Tornado stream stops watching its socket once it has a request's head, and resumes when it has
read the body, a moment later; each time uvloop drops its handle and makes another, with six system
calls. Here a socket stays watched until something arrives that no reader waits for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

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

#: Close a connection on which no complete request head has arrived for this many seconds.
IDLE_SECONDS = 300.0
#: Close a connection whose request body has not arrived after this many seconds.
BODY_SECONDS = 60.0
#: Seconds between checks for overdue connections, and for answers still being written.
LOOK_SECONDS = 1.0
FLUSH_PAUSE = 0.01


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
            else:
                handler(fileobj, seen)

        super().add_handler(fd, unless_unwanted, events)

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

    def initialize(self, application: Application, **options: Any) -> None:  # type: ignore[override]
        """Set up (Tornado's hook instead of `__init__`); `options` are those of its server."""
        super().initialize(application, **options)
        self.conn_params.header_timeout = None
        self._patience = Patience()

    async def flushed(self) -> None:
        """Wait until every answer has been written to its client."""
        while any(conn.stream.writing() for conn in self._connections):  # noqa: ASYNC110
            await asyncio.sleep(FLUSH_PAUSE)

    def start_request(
        self, server_conn: object, request_conn: HTTPConnection
    ) -> HTTPMessageDelegate:
        """Start to wait for a request (Tornado's hook)."""
        stream = cast("HTTP1Connection", request_conn).stream
        return _Awaited(super().start_request(server_conn, request_conn), stream, self._patience)

    def on_close(self, server_conn: object) -> None:
        """Forget a connection (Tornado's hook)."""
        super().on_close(server_conn)
        self._patience.end(cast("HTTP1ServerConnection", server_conn).stream)


class _Awaited(HTTPMessageDelegate):
    """An incoming request: limits the time for its head, then for its body."""

    def __init__(self, delegate: HTTPMessageDelegate, stream: IOStream, patience: Patience) -> None:
        self._delegate = delegate
        self._stream = stream
        self._patience = patience
        # Passed on as they are: no call more for each part of the body.
        self.data_received = delegate.data_received  # type: ignore[method-assign]
        self.on_connection_close = delegate.on_connection_close  # type: ignore[method-assign]
        patience.give(stream, IDLE_SECONDS)

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        """Note the head and pass it on."""
        self._patience.give(self._stream, BODY_SECONDS)
        return self._delegate.headers_received(start_line, headers)

    def finish(self) -> None:
        """Note the end of the body and pass it on."""
        self._patience.end(self._stream)
        self._delegate.finish()
