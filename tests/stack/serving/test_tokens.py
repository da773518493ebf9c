"""Tokens that changed, with MiniLM's real tokenizer: a swapped vocabulary, a changed library.

In each case requests keep coming and the release that was proven answers all of them.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from gateway.building import wheels
from gateway.building.custody import Custody
from gateway.preprocessing import environments
from gateway.releases import lock, manifest
from gateway.releases.lock import Lock, LockedRelease
from tests.support.repository import copied
from tests.support.stack import ROOT, Stack, serve

PACKAGE = "minilm-preprocessor"
PATIENCE_SECONDS = 120
RELEASE = """[releases.{name}]
model_version = 1
preprocessor = "minilm-preprocessor=={version}"

"""
DECLARED = RELEASE.format(name=1, version="1.0.0") + RELEASE.format(name=2, version="2.0.0")
#: What a careless change of a tokenizer's library does: texts keep their capitals.
UNCASED = """
_original = Tokenizer
class Tokenizer:
    @staticmethod
    def from_str(text):
        return _original.from_str(text.replace('"lowercase":true', '"lowercase":false'))
"""


class Site:
    """A repository with minilm in it, and the environments and wheels of its releases."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.model = copied(root / "repository", ["minilm"]) / "minilm"
        self.environments = root / "environments"
        self.wheelhouse = root / "wheelhouse"
        shutil.copytree(ROOT / ".run/wheelhouse", self.wheelhouse)
        found = lock.read(self.model)
        assert found
        self.locked = found.releases

    def declare(self, releases: str, traffic: str) -> None:
        """Declare these releases and weights, at once."""
        partial = self.model / ".releases.toml.new"
        partial.write_text(f"{releases}[traffic]\n{traffic}\n")
        partial.replace(self.model / manifest.FILE)

    def tokenizers(self, name: str) -> Path:
        """The module of the library that makes the tokens, in a release's environment."""
        digest = environments.digest(self.locked[name].requirements)
        (path,) = (self.environments / digest).glob("lib/python*/site-packages/tokenizers")
        return path / "__init__.py"

    def swapped(self, version: str) -> LockedRelease:
        """Build and lock a preprocessor of two swapped words in the vocabulary."""
        sources = self.root / "preprocessors"
        for name in ("contract", "minilm"):
            shutil.copytree(ROOT / "preprocessors" / name, sources / name)
        project = sources / "minilm/pyproject.toml"
        project.write_text(project.read_text().replace('"2.0.0"', f'"{version}"'))
        path = sources / "minilm/src/minilm_preprocessor/tokenizer.json"
        tokenizer = json.loads(path.read_text())
        words = tokenizer["model"]["vocab"]
        words["the"], words["a"] = words["a"], words["the"]
        path.write_text(json.dumps(tokenizer, ensure_ascii=False))
        built = wheels.build(sources, self.wheelhouse, Custody(sources), lambda _: None)
        wheel = next(item for item in built if item.name == PACKAGE)
        own = f"{PACKAGE}=={wheel.version}"
        requirements = self.locked["2"].requirements
        others = [line for line in requirements if lock.pin(line).name != PACKAGE]
        return msgspec.structs.replace(
            self.locked["2"],
            preprocessor=own,
            wheel=wheel.digest,
            requirements=[*others, f"{own} --hash={wheel.digest}"],
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("tokens"))


@pytest.fixture(scope="module")
def serving(site: Site) -> Iterator[Stack]:
    site.declare(DECLARED, "1 = 100")
    stack = serve(
        site.root / "run",
        repository=str(site.model.parent),
        wheelhouse=str(site.wheelhouse),
        environments=str(site.environments),
        workers="1",
        worker_call_seconds="5",
        watch_seconds="0.1",
    )
    yield stack
    stack.interrupt()


@asynccontextmanager
async def load(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """Send requests all the while; release 1 must answer each."""
    stop = asyncio.Event()
    answers: list[httpx.Response] = []
    async with httpx.AsyncClient(base_url=stack.url, timeout=60) as client:

        async def user() -> None:
            while not stop.is_set():
                answers.append(await client.post("/minilm_single_predict", json={"input": "The"}))
                await asyncio.sleep(0.02)

        users = [asyncio.create_task(user()) for _ in range(2)]
        try:
            yield client
        finally:
            stop.set()
            await asyncio.gather(*users)
    assert len(answers) > 5
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["X-Release"] for answer in answers} == {"1"}


async def told(
    client: httpx.AsyncClient, name: str, holds: Callable[[dict[str, Any]], bool]
) -> None:
    """Wait until what is shown of a release is as wanted."""
    shown: dict[str, Any] = {}
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                answer = await client.get("/models/minilm")
                shown = answer.json()["releases"].get(name, {})
                if holds(shown):
                    return
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"release {name} is shown as {shown}")


async def loaded_again(client: httpx.AsyncClient) -> None:
    """Unload release 2, and load it again once it is gone."""
    await client.post("/admin/models/minilm/unload", json={"release": "2"})
    await told(client, "2", lambda x: not x)
    await client.post("/admin/models/minilm/load", json={"release": "2"})
    await told(client, "2", bool)


def differs(shown: dict[str, Any]) -> bool:
    return "input_ids[" in shown.get("reason", "")


async def test_a_swapped_vocabulary_is_rejected(site: Site, serving: Stack) -> None:
    locked = await asyncio.to_thread(site.swapped, "2.0.1")
    async with load(serving) as client:
        lock.write(site.model, Lock(site.locked | {"3": locked}))
        site.declare(DECLARED + RELEASE.format(name=3, version="2.0.1"), "3 = 100")
        await told(client, "3", lambda x: x.get("state") == "rejected" and differs(x))
        ready = await client.get("/readyz")
        assert ready.status_code == 200
        assert "input_ids" in ready.json()["problems"]["minilm/3"]
        site.declare(DECLARED, "1 = 100")
        lock.write(site.model, Lock(site.locked))
        await told(client, "3", lambda x: not x)


async def test_a_changed_library_is_rejected(site: Site, serving: Stack) -> None:
    """The environment's metadata says nothing of it; the golden tensors do."""
    pinned = {"headers": {"X-Release": "2"}, "json": {"input": "The"}}
    async with load(serving) as client:
        await told(client, "2", lambda x: x.get("state") == "ready")
        module = site.tokenizers("2")
        before = module.read_text()
        module.write_text(before + UNCASED)

        # A worker that comes up with it is not asked, however well the first one did.
        environment = module.parents[4].name
        for worker, line in serving.commands.items():
            if PACKAGE in line and environment in line[0]:
                worker.kill()
        await told(client, "2", lambda x: x.get("state") == "unavailable" and differs(x))
        assert (await client.post("/minilm_single_predict", **pinned)).status_code == 503

        # Nor does a release that is loaded with it get through the gate.
        await loaded_again(client)
        await told(client, "2", lambda x: x.get("state") == "rejected" and differs(x))

        module.write_text(before)
        await loaded_again(client)
        await told(client, "2", lambda x: x.get("state") == "ready")
        assert (await client.post("/minilm_single_predict", **pinned)).status_code == 200
