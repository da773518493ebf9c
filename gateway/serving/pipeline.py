"""The request path: what both endpoints call, one stage a line."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from gateway.errors import (
    Draining,
    ReleaseNotReady,
    UnknownModel,
    UnknownRelease,
)
from gateway.releases.manifest import Manifest
from gateway.serving.job import Job
from gateway.serving.lane import Lane
from gateway.serving.live import Live
from gateway.telemetry import metrics

#: Seconds after which a client may ask again for a release that is being prepared.
RETRY_AFTER = 2


class Answer(NamedTuple):
    """Results as JSON text, in the order of the instances; stage times in seconds."""

    results: Sequence[bytes]
    stages: dict[str, float]


class Traffic(NamedTuple):
    """One model: who answers for each release name, the weights in force, what is declared."""

    lives: dict[str, Live]
    weights: dict[str, int]
    declared: Manifest


class Pipeline:
    """Routes each request to a lane and sees it through.

    `notices`, and what `watch` returns, tell what beside the releases needs an operator's eye;
    only the latter keeps the gateway from being ready.
    """

    def __init__(self, watch: Callable[[], dict[str, str]]) -> None:
        self.traffic: dict[str, Traffic] = {}
        self.notices: dict[str, str] = {}
        self.draining = False
        self.idle = asyncio.Event()
        self.idle.set()
        self._open = 0
        self._watch = watch

    @contextmanager
    def opened(self, lane: Lane) -> Iterator[None]:
        """Count a request as open for the length of the block.

        Shutdown, and a lane's retirement, wait for these: enter without an await after `route`.
        """
        self._open += 1
        self.idle.clear()
        try:
            with metrics.held(metrics.REQUESTS_OPEN), lane.opened():
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
        return self._watch() | {
            f"{model}/{name}": f"{state}: {reason}" if reason else state
            for model, traffic in self.traffic.items()
            for name in traffic.weights or traffic.declared.traffic
            for live in [traffic.lives[name]]
            for state, reason in [live.state]
            # One that was proven and is loaded anew still answers, a moment later.
            if state != "ready" and not (live.proven and state == "aligning")
        }

    def warnings(self) -> dict[str, str]:
        """Say what needs an eye although requests are answered: rejected releases, bad files."""
        return self.notices | {
            f"{model}/{name}": f"rejected: {live.state[1]}"
            for model, traffic in self.traffic.items()
            for name, live in traffic.lives.items()
            if live.rejected
        }

    def route(self, model: str, pin: str | None, affinity: str | None) -> Lane:
        """Choose a release: the pinned one, else by weight; one affinity key, one release.

        Raises UnknownModel, UnknownRelease, ReleaseNotReady.
        """
        if not self.traffic:
            raise ReleaseNotReady("The gateway is starting.", retry_after=RETRY_AFTER)
        if (traffic := self.traffic.get(model)) is None:
            raise UnknownModel(f"No model {model[:64]!r} is served; GET /models lists them.")
        if pin is not None and pin not in traffic.lives:
            raise UnknownRelease(f"Model {model!r} has no release {pin[:64]!r}.")
        name = pin if pin is not None else _draw(traffic.weights, model, affinity)
        live = traffic.lives.get(name)
        if live is None or live.lane is None or live.rejected:
            which = f"release {name!r}" if name else "any release"
            raise ReleaseNotReady(
                f"Model {model!r} cannot serve {which} now; GET /models/{model} says why.",
                retry_after=RETRY_AFTER,
            )
        return live.lane

    async def predict(self, lane: Lane, job: Job) -> Answer:
        """Answer all instances of a request by its deadline; a single is a batch of one.

        Raises GatewayError; no instance is answered unless all are. Cancelling `job.answer` (the
        client went away) stops all work that nobody else waits for, and raises CancelledError.
        """
        if self.draining:
            raise Draining("The gateway is shutting down.", retry_after=1)
        lane.require_ready()
        with lane.admission.charge(job.rows):
            timer = asyncio.get_running_loop().call_at(job.deadline, job.expire)
            lane.submit(job)
            try:
                return Answer(await job.answer, job.stages)
            finally:
                timer.cancel()
                if not job.shadow:
                    metrics.queue_ratio(lane.model).observe(job.queue_share)


def _draw(weights: dict[str, int], model: str, affinity: str | None) -> str:
    """Draw a release by weight: at random, or where the affinity key's digest falls."""
    if len(weights) < 2:  # noqa: PLR2004 - no choice
        return next(iter(weights), "")
    names = sorted(weights)
    bounds = list(itertools.accumulate(weights[name] for name in names))
    if affinity is None:
        point = random.randrange(bounds[-1])  # noqa: S311 - traffic, not secrets
    else:
        key = hashlib.blake2b(f"{model}\0{affinity}".encode(), digest_size=8).digest()
        point = int.from_bytes(key) * bounds[-1] >> 64  # a share of the whole, as at random
    return next(name for name, bound in zip(names, bounds, strict=True) if point < bound)
