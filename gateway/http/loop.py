"""Tornado's event loop, slow to let go of a socket.

A stream stops watching its socket once it has a request's head, and begins again when it has taken
the body, a moment later. Each time uvloop drops its handle and makes another, with six system
calls. Here a socket is watched on until something comes that nobody waits for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tornado.ioloop import IOLoop
from tornado.platform.asyncio import AsyncIOMainLoop


class Loop(AsyncIOMainLoop):
    """The loop of this thread from now on, if made before Tornado makes its own."""

    def initialize(self, **options: Any) -> None:  # type: ignore[override]
        """Begin with nothing watched (Tornado's hook instead of `__init__`)."""
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
        """Watch a socket for these events from now on (Tornado's hook)."""
        number, _ = self.split_fd(fd)
        if events & IOLoop.READ:
            self._unwanted.discard(number)
        elif number in self.readers:
            self._unwanted.add(number)
            events |= IOLoop.READ
        super().update_handler(fd, events)

    def remove_handler(self, fd: Any) -> None:
        """Watch a socket no longer (Tornado's hook)."""
        self._unwanted.discard(self.split_fd(fd)[0])
        super().remove_handler(fd)
