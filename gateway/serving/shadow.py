"""Shadow traffic: a copy of requests for a release that answers nobody, and how it differs."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import time
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import structlog
from gateway_preprocessor import Payload, Prepared

from gateway.errors import GatewayError
from gateway.releases.manifest import Shadow
from gateway.serving.job import Job
from gateway.serving.lane import Lane
from gateway.serving.pipeline import Answer, Pipeline
from gateway.telemetry import metrics

log = structlog.get_logger(__name__)

#: Copies under way at once; beyond them requests go unshadowed: the shadow must not cost answers.
MOST_COPIES = 4
#: A list of this many numbers or more counts as an embedding.
EMBEDDING = 16


class Report(msgspec.Struct):
    """What was seen since the comparison began; per instance unless said otherwise.

    `labels_differ` counts instances whose (first) label differs, `cosine` covers embeddings,
    `max_abs_difference` all numbers of a result; `latency_ms` is the mean of shadow − answer
    over requests. For `compare = "preprocessor"` the tensors are compared instead of results.
    """

    release: str
    compare: str
    requests: int = 0
    failed: int = 0
    skipped: int = 0
    instances: int = 0
    labelled: int = 0
    labels_differ: int = 0
    embeddings: int = 0
    cosine_min: float | None = None
    cosine_mean: float | None = None
    max_abs_difference: float = 0.0
    tensors_differ: int = 0
    latency_ms: float = 0.0


class Shadows:
    """The comparisons of all models, and the copies under way."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._reports: dict[str, tuple[Shadow, Report]] = {}
        self._copies: set[asyncio.Task[None]] = set()

    def report(self, model: str) -> Report | None:
        """Return what is known of a model's shadow; None where it has none."""
        shadow = self._pipeline.traffic[model].declared.shadow
        return self._current(model, shadow) if shadow else None

    def copy(self, lane: Lane, payloads: Sequence[Payload], answer: Answer, seconds: float) -> None:
        """Send an answered request to the shadow, for its share of the traffic; returns at once."""
        traffic = self._pipeline.traffic.get(lane.model)
        shadow = traffic.declared.shadow if traffic else None
        if traffic is None or shadow is None or shadow.release == lane.name:
            return
        if random.random() >= shadow.share:  # noqa: S311 - traffic, not secrets
            return
        report = self._current(lane.model, shadow)
        live = traffic.lives.get(shadow.release)
        if (
            len(self._copies) >= MOST_COPIES
            or not live
            or not live.lane
            or live.state[0] != "ready"
        ):
            report.skipped += 1
            return
        work = self._compare(report, shadow, (lane, live.lane), payloads, answer, seconds)
        task = asyncio.create_task(work)
        self._copies.add(task)
        task.add_done_callback(self._copies.discard)

    async def close(self) -> None:
        """Drop the copies under way."""
        for task in self._copies:
            task.cancel()
        await asyncio.gather(*self._copies, return_exceptions=True)

    def _current(self, model: str, shadow: Shadow) -> Report:
        known = self._reports.get(model)
        if known is None or known[0] != shadow:
            self._reports[model] = known = shadow, Report(shadow.release, shadow.compare)
        return known[1]

    async def _compare(
        self,
        report: Report,
        shadow: Shadow,
        lanes: tuple[Lane, Lane],
        payloads: Sequence[Payload],
        answer: Answer,
        seconds: float,
    ) -> None:
        answering, copied = lanes
        labels = (copied.model, copied.name)
        try:
            with copied.opened(), answering.opened():
                if shadow.compare == "preprocessor":
                    await _tensors(report, answering, copied, payloads)
                else:
                    await self._results(report, copied, payloads, answer, seconds)
        except GatewayError as error:
            report.failed += 1
            log.warning("shadow failed", model=copied.model, reason=error.detail)
        report.requests += 1
        metrics.SHADOW_REQUESTS.labels(*labels).inc()
        metrics.SHADOW_DISAGREEMENTS.labels(*labels).set(
            report.labels_differ + report.tensors_differ
        )
        metrics.SHADOW_DIFFERENCE.labels(*labels).set(report.max_abs_difference)
        metrics.SHADOW_LATENCY.labels(*labels).set(report.latency_ms / 1000)

    async def _results(
        self,
        report: Report,
        lane: Lane,
        payloads: Sequence[Payload],
        answer: Answer,
        seconds: float,
    ) -> None:
        started = time.perf_counter()
        copy = await self._pipeline.predict(lane, Job(payloads, seconds, "shadow", shadow=True))
        extra = time.perf_counter() - started - sum(answer.stages.values())
        report.latency_ms += (extra * 1000 - report.latency_ms) / (report.requests + 1)
        for ours, theirs in zip(answer.results, copy.results, strict=True):
            _note(report, msgspec.json.decode(ours), msgspec.json.decode(theirs))


async def _tensors(
    report: Report, answering: Lane, copied: Lane, payloads: Sequence[Payload]
) -> None:
    ours, theirs = await asyncio.gather(answering.prepare(payloads), copied.prepare(payloads))
    for one, other in zip(ours, theirs, strict=True):
        report.instances += 1
        report.tensors_differ += not _same(one, other)


def _same(one: Prepared | Exception, other: Prepared | Exception) -> bool:
    if isinstance(one, Exception) or isinstance(other, Exception):
        return type(one) is type(other)
    return one.tensors.keys() == other.tensors.keys() and all(
        np.array_equal(array, other.tensors[name]) for name, array in one.tensors.items()
    )


def _note(report: Report, ours: Any, theirs: Any) -> None:
    """Compare two results of one instance."""
    report.instances += 1
    if (label := next(_labels(ours), None)) is not None:
        report.labelled += 1
        report.labels_differ += label != next(_labels(theirs), None)
    for one, other in zip(_lists(ours), _lists(theirs), strict=False):
        cosine = _cosine(one, other)
        report.embeddings += 1
        report.cosine_min = min(cosine, report.cosine_min if report.cosine_min is not None else 1.0)
        mean = report.cosine_mean or 0.0
        report.cosine_mean = mean + (cosine - mean) / report.embeddings
    pairs = itertools.zip_longest(_numbers(ours), _numbers(theirs), fillvalue=math.inf)
    worst = max((abs(one - other) for one, other in pairs), default=0.0)
    report.max_abs_difference = max(report.max_abs_difference, worst)


def _labels(value: Any) -> Iterator[Any]:
    """Yield every `label` of a result, the outermost and first ones first."""
    if isinstance(value, dict):
        if "label" in value:
            yield value["label"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _labels(item)


def _lists(value: Any) -> Iterator[list[float]]:
    """Yield every embedding of a result."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        if len(value) >= EMBEDDING and all(isinstance(item, float | int) for item in value):
            yield value
        else:
            for item in value:
                yield from _lists(item)


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, float | int) and not isinstance(value, bool):
        yield float(value)


def _cosine(one: list[float], other: list[float]) -> float:
    if len(one) != len(other):
        return 0.0
    a, b = np.array(one), np.array(other)
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norms if norms else 0.0
