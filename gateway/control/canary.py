"""Asks versions that get no calls, now and then, for a golden case.

An instance that has died, or lost its GPU, is called ready by Triton all the same: without this the
next client would find it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import NamedTuple

import structlog

from gateway.control.release_runtime import ReleaseRuntime
from gateway.control.verification import Verification
from gateway.errors import GatewayError
from gateway.triton.model_control import ModelVersion
from gateway.triton.pool import TritonPool
from gateway.triton.replica import Replica

log = structlog.get_logger(__name__)

#: Seconds without a call after which a version is asked: so many, or so many times as long as the
#: answer took, so that a hundred idle models cost little; less if it has just failed a call.
IDLE, TIMES, IDLE_AFTER_FAILURE = 3.0, 500, 0.5


class Quiet(NamedTuple):
    """How many calls a version had answered when it was last seen to change, and when that was."""

    answered: int
    since: float


class Canaries:
    """Asks the versions of verified releases that get no calls."""

    def __init__(self, triton: TritonPool) -> None:
        self._triton = triton
        self._quiet: dict[tuple[Replica, ModelVersion], Quiet] = {}
        self._took: dict[ModelVersion, float] = {}
        self._asking: dict[tuple[Replica, ModelVersion], asyncio.Task[None]] = {}

    def look(self, runtimes: Iterable[ReleaseRuntime]) -> None:
        """Ask what has been idle for long enough."""
        quiet, self._quiet = self._quiet, {}
        now = time.monotonic()
        for runtime in runtimes:
            if runtime.batcher is None or runtime.verification is None:
                continue
            version = runtime.definition.version
            for replica in self._triton.able(runtime.batcher.verified):
                key, health = (replica, version), replica.inference.health
                answered = health.answered[version]
                before = quiet.get(key)
                if before is None or before.answered != answered:
                    before = Quiet(answered, now)
                self._quiet[key] = before
                idle = max(IDLE, TIMES * self._took.get(version, 0.0))
                if version in health.records:
                    idle = IDLE_AFTER_FAILURE
                if now - before.since >= idle and key not in self._asking:
                    task = asyncio.create_task(self._ask(runtime.verification, replica, version))
                    self._asking[key] = task
                    task.add_done_callback(lambda _, key=key: self._asking.pop(key, None))  # type: ignore[misc]

    async def close(self) -> None:
        """Ask no more."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, checks: Verification, replica: Replica, version: ModelVersion) -> None:
        started = time.monotonic()
        try:
            await checks.ask_one(replica)
        except GatewayError as error:
            names = {"model": version.model, "version": version.number}
            log.warning("canary failed", replica=replica.endpoint, reason=error.detail, **names)
        else:
            self._took[version] = time.monotonic() - started
