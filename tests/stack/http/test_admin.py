"""`/admin` over real HTTP, on a repository of its own: what it changes, and whom it lets in."""

from __future__ import annotations

import io
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import httpx
import psutil
import pytest
import structlog
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from gateway.control.effect import Effect
from gateway.control.reconciler import Reconciler
from gateway.control.states import EffectState
from gateway.http import admin
from gateway.http.base import UnknownRoute, record
from gateway.releases.history import shared
from gateway.releases.manifest import FILE, Manifest, Shadow, read_one
from gateway.settings import Settings
from gateway.telemetry.logs import RequestLog
from tests.support.repository import DIGITS, declared

KEY = "schlüssel"
CHANGES = {
    "promote": {"release": "2"},
    "traffic": {"weights": {"1": 90, "2": 10}},
    "shadow": {"release": "2", "share": 0.5, "compare": "preprocessor"},
    "rollback": {},
}
Answer = Callable[..., Any]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two models; `digits` has two releases."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / FILE).write_text(DIGITS)
    return declared(tmp_path / "models")


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
        log_function=partial(record, RequestLog(structlog.BytesLogger(io.BytesIO()), logging.INFO)),
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


@pytest.fixture
async def client(repository: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(repository=repository) as client:
        yield client


def url(action: str, model: str = "digits") -> str:
    return f"/admin/models/{model}/{action}"


def told(answer: httpx.Response, status: int, code: str) -> str:
    """Check the envelope of an error; return its detail."""
    problem = answer.json()
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["X-Request-Id"] == problem["request_id"]
    return str(problem["detail"])


async def test_every_change_is_made_in_the_file(
    client: httpx.AsyncClient, repository: Path
) -> None:
    path = repository / "digits" / FILE
    before = path.read_text()
    answer = await client.post(url("traffic"), json=CHANGES["traffic"])
    assert answer.status_code == 200
    assert answer.json() == {
        "model": "digits",
        "traffic": {"1": 90, "2": 10},
        "declared_traffic": {"1": 90, "2": 10},
        "shadow": None,
        "unloaded": [],
        "effect": {"state": "in force", "reasons": [], "remarks": []},
    }
    assert read_one(path).traffic == {"1": 90, "2": 10}

    answer = await client.post(url("shadow"), json=CHANGES["shadow"])
    assert answer.json()["shadow"] == CHANGES["shadow"]
    assert read_one(path).shadow == Shadow("2", 0.5, "preprocessor")

    answer = await client.post(url("promote"), json=CHANGES["promote"])
    assert answer.json()["declared_traffic"] == read_one(path).traffic == {"1": 0, "2": 100}

    answer = await client.post(url("rollback"), json={})
    assert answer.json()["declared_traffic"] == read_one(path).traffic == {"1": 90, "2": 10}
    answer = await client.post(url("rollback"))  # an empty body will do
    assert answer.json()["declared_traffic"] == read_one(path).traffic == {"1": 100, "2": 0}

    answer = await client.post(url("shadow"), json={"release": None})
    assert answer.json()["shadow"] is None
    assert path.read_text() == before + "2 = 0\n"

    answer = await client.post(url("unload"), json={"release": "2"})
    assert answer.json()["unloaded"] == ["2"]
    assert read_one(path).loaded.keys() == {"1"}
    answer = await client.post(url("load"), json={"release": "2"})
    assert answer.json()["unloaded"] == []
    assert path.read_text() == before + "2 = 0\n"

    shown = (await client.get(url("history"))).json()
    assert shown["model"] == "digits"
    actions = [(change["action"], change["who"]) for change in shown["history"]]
    order = ("traffic", "shadow", "promote", "rollback", "rollback", "shadow", "unload", "load")
    assert actions == [(action, "admin") for action in order]
    assert (await client.get(url("history", "tumor"))).json()["history"] == []


@pytest.mark.parametrize(
    ("action", "body", "detail"),
    [
        ("promote", {"release": "3"}, "no release '3' is declared; there is 1, 2"),
        ("traffic", {"weights": {"1": 1, "x": 1}}, "no release 'x' is declared"),
        ("traffic", {"weights": {"1": -1}}, "cannot have the weight -1"),
        ("traffic", {"weights": {"1": 0}}, "no release would have a positive weight"),
        ("shadow", {"release": "3"}, "no release '3'"),
        ("shadow", {"release": "2", "share": 2}, "above 0 and at most 1, not 2.0"),
        (
            "unload",
            {"release": "1"},
            "release '1' gets requests: move its traffic to another release first",
        ),
        ("unload", {"release": "3"}, "no release '3'"),
        ("rollback", {}, "nothing to roll back to"),
    ],
)
async def test_what_is_not_possible_is_refused(
    client: httpx.AsyncClient, repository: Path, action: str, body: Any, detail: str
) -> None:
    before = (repository / "digits" / FILE).read_text()
    answer = await client.post(url(action), json=body)
    assert detail in told(answer, 409, "rollout_refused")
    assert (repository / "digits" / FILE).read_text() == before


@pytest.mark.parametrize(
    ("action", "body", "status", "code"),
    [
        ("promote", b"{", 400, "not_json"),
        ("promote", b'{"release": "\xff"}', 400, "not_json"),
        ("promote", b'{"release": 2}', 400, "bad_envelope"),
        ("promote", b"", 400, "bad_envelope"),
        ("promote", b'{"release": "2", "now": true}', 400, "bad_envelope"),
        ("traffic", b'{"weights": {"1": 0.5}}', 400, "bad_envelope"),
        ("shadow", b'{"release": "2", "compare": "all"}', 400, "bad_envelope"),
        ("rollback", b"[]", 400, "bad_envelope"),
    ],
)
async def test_bad_bodies(
    client: httpx.AsyncClient, action: str, body: bytes, status: int, code: str
) -> None:
    told(await client.post(url(action), content=body), status, code)


async def test_other_errors_of_http(client: httpx.AsyncClient, repository: Path) -> None:
    form = await client.post(url("rollback"), data={"release": "2"})
    assert "application/json" in told(form, 415, "unsupported_media_type")
    assert (await client.get(url("promote"))).headers["Allow"] == "POST"
    assert (await client.post(url("history"))).headers["Allow"] == "GET"
    told(await client.post("/admin/models/digits/explode"), 404, "unknown_route")
    async with serving(repository=repository, max_body_bytes=1024) as small:
        answer = await small.post(url("promote"), content=b" " * 2000)
        told(answer, 413, "body_too_large")


@pytest.mark.parametrize("model", ["nobody", "..%2Fsecret", "%2E%2E%2Fsecret", "%00", "*"])
async def test_only_models_of_the_repository(
    client: httpx.AsyncClient, repository: Path, model: str
) -> None:
    secret = (repository.parent / "secret" / FILE).read_text()
    told(await client.post(url("promote", model), json={"release": "2"}), 404, "unknown_model")
    told(await client.get(url("history", model)), 404, "unknown_model")
    assert (repository.parent / "secret" / FILE).read_text() == secret


async def test_only_models_that_are_served(repository: Path) -> None:
    async with serving(repository=repository, models=("tumor",)) as client:
        told(await client.get(url("history")), 404, "unknown_model")
        assert (await client.get(url("history", "tumor"))).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": KEY},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": f"Bearer {KEY}x"},
    ],
)
async def test_a_missing_or_wrong_key(repository: Path, headers: dict[str, str]) -> None:
    before = (repository / "digits" / FILE).read_text()
    sent = {name: value.encode() for name, value in headers.items()}
    async with serving(repository=repository, admin_key=KEY) as client:
        for action, body in CHANGES.items():
            answer = await client.post(url(action), json=body, headers=sent)
            assert KEY not in told(answer, 401, "unauthorized")
            assert answer.headers["WWW-Authenticate"].startswith("Bearer ")
        told(await client.get(url("history"), headers=sent), 401, "unauthorized")
        told(await client.get(url("history", "nobody"), headers=sent), 401, "unauthorized")
    assert (repository / "digits" / FILE).read_text() == before


async def test_the_key_opens_from_anywhere(repository: Path) -> None:
    sent = {"Authorization": f"bearer {KEY}".encode(), "X-Forwarded-For": b"203.0.113.7"}
    async with serving(repository=repository, admin_key=KEY) as client:
        client.headers["Host"] = "gateway.example"
        answer = await client.post(url("promote"), json={"release": "2"}, headers=sent)
        assert answer.status_code == 200
        sent["Origin"] = b"https://evil.example"
        answer = await client.post(url("promote"), json={"release": "1"}, headers=sent)
        told(answer, 403, "forbidden")


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("X-Forwarded-For", "127.0.0.1"),
        ("Forwarded", "for=127.0.0.1"),
        ("X-Real-IP", "127.0.0.1"),
        ("Host", "evil.example"),
        ("Host", "127.0.0.1.evil.example:8080"),
        ("Host", "localhost.evil.example"),
        ("Origin", "http://evil.example"),
        ("Origin", "http://localhost"),  # another port is another site
        ("Origin", "null"),
        ("Origin", "http://["),
    ],
)
async def test_without_a_key_only_programs_of_this_host(
    client: httpx.AsyncClient, repository: Path, header: str, value: str
) -> None:
    before = (repository / "digits" / FILE).read_text()
    for action, body in CHANGES.items():
        answer = await client.post(url(action), json=body, headers={header: value})
        told(answer, 403, "forbidden")
    told(await client.get(url("history"), headers={header: value}), 403, "forbidden")
    assert (repository / "digits" / FILE).read_text() == before


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.1.2.3:80", "[::1]:8"]
)
async def test_loopback_names_are_let_in(client: httpx.AsyncClient, host: str) -> None:
    headers = {"Host": host, "Origin": f"http://{host}"}
    assert (await client.get(url("history"), headers=headers)).status_code == 200


async def test_without_a_key_other_hosts_are_refused(repository: Path) -> None:
    addresses = [
        found.address
        for interface in psutil.net_if_addrs().values()
        for found in interface
        if found.family == socket.AF_INET and not found.address.startswith("127.")
    ]
    if not addresses:
        pytest.skip("this machine has only a loopback interface")
    async with serving(addresses[0], repository=repository) as client:
        headers = {"Host": "localhost"}
        answer = await client.get(url("history"), headers=headers)
        assert "only on this host" in told(answer, 403, "forbidden")


def test_the_key_is_no_text_to_be_shown() -> None:
    assert KEY not in repr(Settings(admin_key=KEY))
    with pytest.raises(ValueError, match="admin_key"):
        Settings(admin_key="")
    assert KEY not in json.dumps(Settings(admin_key=KEY).model_dump(mode="json"))
