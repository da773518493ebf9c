"""Observes how the gateway stands: gauges of its releases, and a log line when readiness changes.

Every gateway process looks for itself, whether or not anyone probes it: where several share a
port, each scrape and each probe reaches only one of them.
"""

from __future__ import annotations

import asyncio

import structlog

from gateway.serving.pipeline import Pipeline
from gateway.telemetry import metrics
from gateway.telemetry.usage import usage

log = structlog.get_logger(__name__)


class Readiness:
    """Whether the gateway was ready when last looked at; None before the first look."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._ready: bool | None = None

    async def watch(self, seconds: float) -> None:
        """Look for ever, with such pauses."""
        while True:
            try:
                self.look()
                show(self._pipeline)
                usage.look()
            except Exception:
                log.exception("observing the gateway failed")
            await asyncio.sleep(seconds)

    def look(self) -> None:
        """Log if readiness has changed; a warning only where it was lost while serving."""
        problems = self._pipeline.problems()
        before, self._ready = self._ready, not problems
        if self._ready == before:
            return
        if self._ready:
            log.info("ready")
        elif before and not self._pipeline.draining:
            log.warning("not ready", problems=problems)
        else:
            log.info("not ready", problems=problems)


def show(pipeline: Pipeline) -> None:
    """Set the gauges of every release that is there."""
    for model, traffic in pipeline.traffic.items():
        for name, live in traffic.lives.items():
            ready, rejected, weight = metrics.standing(model, name)
            ready.set(live.state[0] == "ready")
            rejected.set(bool(live.rejected))
            weight.set(traffic.weights.get(name, 0))
