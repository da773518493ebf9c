"""A bare Tornado handler in a process of its own: parses JSON, answers JSON, nothing else.

`python -m loadtests.micro.bare_handler ANSWER` prints its port and serves until its input ends.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import msgspec
import uvloop
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from loadtests.load.plan import Stamps
from loadtests.load.service import ROOT


class BareHandler(NamedTuple):
    """The running process."""

    pid: int
    port: int


@contextmanager
def started(stamps: Stamps) -> Iterator[BareHandler]:
    """Run one for the length of the block; its answers look like the gateway's, same stamps."""
    answer = {"output": {"label": "benign", "probability": 0.9904670119285583}}
    text = msgspec.json.encode(answer | msgspec.structs.asdict(stamps)).decode()
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "loadtests.micro.bare_handler", text],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:  # which closes its input, and waits
        assert process.stdout  # noqa: S101 - a pipe
        yield BareHandler(process.pid, int(process.stdout.readline()))


class Bare(RequestHandler):
    """Answers every body that is JSON with the same content, encoded anew."""

    def initialize(self, answer: object) -> None:
        """Take what to answer."""
        self._answer = answer

    def post(self) -> None:
        """Parse and answer."""
        msgspec.json.decode(self.request.body)
        self.set_header("Content-Type", "application/json")
        self.finish(msgspec.json.encode(self._answer))


async def serve(answer: object) -> None:
    """Serve on a free port of the loopback until the input ends."""
    server = HTTPServer(Application([(r"/.*", Bare, {"answer": answer})]))
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    print(sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.stop()


if __name__ == "__main__":
    uvloop.run(serve(msgspec.json.decode(sys.argv[1])))
