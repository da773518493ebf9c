"""`/admin` on a port of its own, and how its answers are read."""

from __future__ import annotations

import io
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import httpx
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from gateway.control.effect import Effect
from gateway.control.reconciler import Reconciler
from gateway.control.states import EffectState
from gateway.http import admin
from gateway.http.base import UnknownRoute, record
from gateway.releases.history import shared
from gateway.releases.manifest import Manifest
from gateway.settings import Settings
from gateway.telemetry.logs import RequestLog, Stream

CHANGES = {
    "promote": {"release": "2"},
    "traffic": {"weights": {"1": 90, "2": 10}},
    "shadow": {"release": "2", "share": 0.5, "compare": "preprocessor"},
    "rollback": {},
}


class Follower:
    """A gateway that has applied each change at once: `test_effect.py` has real ones."""

    async def settled(
        self, model: str, declared: Manifest, seconds: float, loads: str | None
    ) -> Effect:
        weights = shared(declared.traffic)
        return Effect(EffectState.IN_FORCE, [], [], weights, weights)


@asynccontextmanager
async def serving(address: str = "127.0.0.1", **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the routes of `/admin` on a free port."""
    app = Application(
        admin.routes(Settings(**settings), cast("Reconciler", Follower())),
        default_handler_class=UnknownRoute,
        log_function=partial(record, RequestLog(Stream(io.BytesIO), logging.INFO)),
    )
    sockets = bind_sockets(0, address, family=socket.AF_INET)
    server = HTTPServer(app)
    server.add_sockets(sockets)
    port = sockets[0].getsockname()[1]
    try:
        async with httpx.AsyncClient(base_url=f"http://{address}:{port}", timeout=30) as client:
            yield client
    finally:
        server.stop()
        await server.close_all_connections()


def url(action: str, model: str = "digits") -> str:
    return f"/admin/models/{model}/{action}"


def told(answer: httpx.Response, status: int, code: str) -> str:
    """Check the envelope of an error; return its detail."""
    problem = answer.json()
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["X-Request-Id"] == problem["request_id"]
    return str(problem["detail"])
