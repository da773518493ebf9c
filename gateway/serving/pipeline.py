"""The request path: what both endpoints call, one stage a line."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from gateway_preprocessor import Payload

from gateway.errors import (
    BatchTooLarge,
    DeadlineExceeded,
    Draining,
    UnknownModel,
    UnknownRelease,
)
from gateway.serving.job import Job
from gateway.serving.lane import Lane
from gateway.telemetry import metrics


class Answer(NamedTuple):
    """Results as JSON text, in the order of the instances; stage times in seconds."""

    results: Sequence[bytes]
    stages: dict[str, float]


class Traffic(NamedTuple):
    """The lanes of one model by release name, and the weights of its traffic."""

    lanes: dict[str, Lane]
    weights: dict[str, int]


class Pipeline:
    """Routes each request to a lane and sees it through.

    `traffic` maps model names to their lanes. `max_batch_rows` bounds a request. `notices` tells
    what beside the lanes keeps the gateway from being ready.
    """

    def __init__(self, max_batch_rows: int, notices: Callable[[], dict[str, str]]) -> None:
        self.traffic: dict[str, Traffic] = {}
        self.draining = False
        self.idle = asyncio.Event()
        self.idle.set()
        self._open = 0
        self._max_batch_rows = max_batch_rows
        self._notices = notices

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Count a request as open for the length of the block; shutdown waits for these."""
        self._open += 1
        self.idle.clear()
        try:
            with metrics.held(metrics.REQUESTS_OPEN):
                yield
        finally:
            self._open -= 1
            if not self._open:
                self.idle.set()

    def problems(self) -> dict[str, str]:
        """Say what keeps the gateway from being ready, by `model/release`; empty: it is ready."""
        if self.draining:
            return {"gateway": "shutting down"}
        if not self.traffic:
            return {"gateway": "no model is served"}
        return self._notices() | {
            f"{model}/{name}": problem
            for model, traffic in self.traffic.items()
            for name, lane in traffic.lanes.items()
            if traffic.weights.get(name) and (problem := lane.problem)
        }

    def route(self, model: str, pin: str | None) -> Lane:
        """Choose a release: the pinned one, else at random by weight.

        Raises UnknownModel, UnknownRelease.
        """
        if (traffic := self.traffic.get(model)) is None:
            raise UnknownModel(f"No model {model!r} is served; GET /models lists them.")
        if pin is not None:
            if (lane := traffic.lanes.get(pin)) is None:
                raise UnknownRelease(f"Model {model!r} has no release {pin!r}.")
            return lane
        (name,) = random.choices(list(traffic.weights), list(traffic.weights.values()))  # noqa: S311
        return traffic.lanes[name]

    async def predict(self, lane: Lane, payloads: Sequence[Payload], seconds: float) -> Answer:
        """Answer all instances of a request within `seconds`; a single is a batch of one.

        Raises GatewayError; no instance is answered unless all are. Cancelling it (the client
        went away) stops all work that nobody else waits for.
        """
        if self.draining:
            raise Draining("The gateway is shutting down.", retry_after=1)
        if len(payloads) > self._max_batch_rows:
            raise BatchTooLarge(
                f"{len(payloads)} instances; at most {self._max_batch_rows} fit in one batch."
            )
        lane.require_ready()
        with lane.admission.charge(len(payloads)):
            deadline = asyncio.get_running_loop().time() + seconds
            lane.submit(job := Job(payloads, deadline))
            try:
                async with asyncio.timeout_at(deadline):
                    results = await job.answer
            except TimeoutError:
                raise DeadlineExceeded(f"No answer within {seconds * 1000:.0f} ms.") from None
        return Answer(results, job.stages)
