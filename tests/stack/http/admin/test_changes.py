"""`/admin` over real HTTP, on a repository of its own: what it changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.http.base import SMALL
from gateway.releases.manifest import FILE, Shadow, read_one
from tests.stack.http.admin.server import CHANGES, serving, told, url


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
    told(await client.post(url("promote"), content=b" " * (SMALL + 1)), 413, "body_too_large")


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
