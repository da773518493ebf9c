"""Relocking what serves: no request fails, or a refusal that changes nothing."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.releases import lock
from tests.support.cli import gateway
from tests.support.goldens import cases
from tests.support.repository import copied
from tests.support.stack import Stack, serve

MODEL = "langid"
CASE = cases(MODEL)[0]
SECONDS = 60


@pytest.fixture(scope="module", params=["1", "2"], ids=["one process", "two processes"])
def serving(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """A gateway whose model has two releases, each with half of the traffic."""
    folder = tmp_path_factory.mktemp("relock")
    repository = copied(folder / "repository", [MODEL])
    stack = serve(folder / "run", repository=str(repository), processes=request.param)
    yield stack
    stack.interrupt()


class Users:
    """Sends requests all the while; counts the answers and remembers what was wrong."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._stop = asyncio.Event()
        self.answers = 0
        self.wrong: list[str] = []
        self._tasks = [asyncio.create_task(self._ask()) for _ in range(4)]

    async def _ask(self) -> None:
        while not self._stop.is_set():
            answer = await self._client.post(f"/{MODEL}_single_predict", json=CASE.single)
            self.answers += 1
            if answer.status_code != 200:
                self.wrong.append(answer.text)
            elif told := CASE.wrong(answer.json()["output"], answer.json()["model_version"]):
                self.wrong.append(told)

    async def end(self) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)


async def relock(repository: Path, *names: str) -> subprocess.CompletedProcess[str]:
    again = [word for name in names for word in ("--relock", name)]
    place = ("--repository", str(repository))
    return await asyncio.to_thread(gateway, "lock", MODEL, *again, *place)


async def models(client: httpx.AsyncClient) -> dict[str, Any]:
    shown: dict[str, Any] = (await client.get(f"/models/{MODEL}")).json()
    return shown


async def test_a_change_of_the_config_costs_no_request(serving: Stack) -> None:
    repository = serving.run_dir.parent / "repository"
    config, locks = repository / MODEL / lock.CONFIG, repository / MODEL / lock.FILE
    before = locks.read_bytes()
    text = config.read_text()
    changed = text.replace("max_queue_delay_microseconds: 0", "max_queue_delay_microseconds: 300")
    assert changed != text
    config.write_text(changed)
    begin = serving.log.read_text().count('"release retires"')
    async with httpx.AsyncClient(base_url=serving.url, timeout=60) as client:
        users = Users(client)
        refused = await relock(repository, "1")
        assert refused.returncode == 1
        assert "config.pbtxt changed, and release 2 shares it" in refused.stderr
        assert locks.read_bytes() == before
        done = await relock(repository, "all")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"verifying {MODEL}, release 1, 2\n")
        assert locks.read_bytes() != before
        count = len(serving.gateways) or 1
        async with asyncio.timeout(SECONDS):  # both releases in every gateway
            while serving.log.read_text().count('"release retires"') < begin + 2 * count:
                await asyncio.sleep(0.1)
        await asyncio.sleep(5)  # each process verifies what another one has loaded, too
        assert (await models(client))["effect"]["state"] == "in force"
        await users.end()
    assert users.answers > 100
    assert not users.wrong


async def test_files_that_fail_verification_are_not_locked(serving: Stack) -> None:
    repository = serving.run_dir.parent / "repository"
    config, locks = repository / MODEL / lock.CONFIG, repository / MODEL / lock.FILE
    before, text = locks.read_bytes(), config.read_text()
    async with httpx.AsyncClient(base_url=serving.url, timeout=60) as client:
        users = Users(client)
        try:
            config.write_text(text.replace("TYPE_FP32", "TYPE_FP64"))
            done = await relock(repository, "all")
            assert done.returncode == 1
            reason = "rejected: output 'scores__0': float32 is declared, the model has FP64"
            for name in "12":
                told = f"{MODEL}, release {name}: {reason}; all locks of {MODEL} stay as they were"
                assert told in done.stderr
            assert "Traceback" not in done.stderr
            assert locks.read_bytes() == before
        finally:
            config.write_text(text)
        assert (await models(client))["effect"]["state"] == "in force"
        await users.end()
    assert users.answers > 100
    assert not users.wrong
