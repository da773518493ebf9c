"""`/admin` over real HTTP: whom it lets in."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import httpx
import psutil
import pytest

from gateway.releases.manifest import FILE
from gateway.settings import Settings
from tests.stack.http.admin.server import CHANGES, serving, told, url

KEY = "schlüssel"


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
