"""The dispatcher: takes requests for all models, and passes each on to its model's process."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Mapping
from contextlib import AsyncExitStack
from http import HTTPStatus
from pathlib import Path

import aiohttp
import uvloop
from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler

from loadtests.baselines import messages

#: Seconds that a sub-service may take to answer, and that idle connections to it are kept.
PATIENCE, KEPT = 60, 300
Sessions = Mapping[str, aiohttp.ClientSession]


class Dispatch(RequestHandler):
    """Passes a request on, and the answer back, without a look inside."""

    def initialize(self, sessions: Sessions) -> None:
        """Take a session for each model."""
        self._sessions = sessions

    async def post(self, model: str, form: str) -> None:
        """Pass one request on."""
        self.set_header("Content-Type", messages.JSON)
        session = self._sessions.get(model)
        if session is None:
            self.set_status(HTTPStatus.NOT_FOUND)
            self.finish(messages.problem(f"no model {model}"))
            return
        try:
            async with session.post(f"/{form}_predict", data=self.request.body) as answer:
                body = await answer.read()
        except (aiohttp.ClientError, TimeoutError):
            self.set_status(HTTPStatus.SERVICE_UNAVAILABLE)
            self.finish(messages.problem(f"{model} is not there"))
            return
        self.set_status(answer.status)
        self.finish(body)


class Ready(RequestHandler):
    """Asks every sub-service."""

    def initialize(self, sessions: Sessions) -> None:
        """Take a session for each model."""
        self._sessions = sessions

    async def get(self) -> None:
        """Answer 200 when all of them answer."""
        found = await asyncio.gather(*map(_ready, self._sessions.values()))
        missing = [name for name, there in zip(self._sessions, found, strict=True) if not there]
        self.set_header("Content-Type", messages.JSON)
        if missing:
            self.set_status(HTTPStatus.SERVICE_UNAVAILABLE)
        self.finish(messages.problem(f"not ready: {missing}") if missing else b'{"ready":true}')


class Unknown(RequestHandler):
    """Any other path."""

    def prepare(self) -> None:
        """Refuse it."""
        self.set_status(HTTPStatus.NOT_FOUND)
        self.set_header("Content-Type", messages.JSON)
        self.finish(messages.problem(f"no path {self.request.path}"))


def serve(listening: socket.socket, paths: Mapping[str, Path]) -> None:
    """Serve until SIGTERM; `paths` are the sub-services' sockets by model."""
    uvloop.run(_serve(listening, paths))


async def _serve(listening: socket.socket, paths: Mapping[str, Path]) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with AsyncExitStack() as stack:
        sessions = {
            name: await stack.enter_async_context(_session(path)) for name, path in paths.items()
        }
        given = {"sessions": sessions}
        application = Application(
            [(r"/([^/]+)_(single|batch)_predict", Dispatch, given), (r"/readyz", Ready, given)],
            default_handler_class=Unknown,
            log_function=lambda _: None,
        )
        server = HTTPServer(application)
        server.add_socket(listening)
        await ended.wait()
        server.stop()


def _session(path: Path) -> aiohttp.ClientSession:
    """Return a session that keeps as many connections to a Unix socket as requests need."""
    return aiohttp.ClientSession(
        "http://service",
        connector=aiohttp.UnixConnector(str(path), limit=0, keepalive_timeout=KEPT),
        timeout=aiohttp.ClientTimeout(total=PATIENCE),
        headers={"Content-Type": messages.JSON},
        cookie_jar=aiohttp.DummyCookieJar(),
    )


async def _ready(session: aiohttp.ClientSession) -> bool:
    try:
        async with session.get("/readyz") as answer:
            return bool(answer.ok)
    except (aiohttp.ClientError, TimeoutError):
        return False
