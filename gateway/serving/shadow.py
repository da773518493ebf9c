"""Shadow traffic: copies of requests to a release that answers nobody, and how it differs."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import time
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np
import structlog
from gateway_preprocessor import Payload, Prepared

from gateway.deadline import Deadline
from gateway.errors import GatewayError
from gateway.releases.manifest import Shadow
from gateway.serving.admission import InFlight
from gateway.serving.batcher import Batcher
from gateway.serving.queue import PendingRequest
from gateway.serving.request import Prediction, Request
from gateway.serving.routing import ShadowRoute
from gateway.telemetry import metrics

log = structlog.get_logger(__name__)

#: Most copies in flight; further requests are not copied, as a shadow must not delay answers.
MOST_COPIES = 4
#: A list of this many numbers or more counts as an embedding.
EMBEDDING = 16


class Report(msgspec.Struct):
    """What the comparison has found so far; per instance unless noted otherwise.

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


class Answering(Protocol):
    """What shadows need of the predictor."""

    in_flight: InFlight

    async def answer(
        self, batcher: Batcher, pending: PendingRequest, payloads: Sequence[Payload]
    ) -> Prediction:
        """Answer with this batcher."""


class Shadows:
    """The comparisons of all models, and the copies in flight."""

    def __init__(self, predictor: Answering) -> None:
        self._predictor = predictor
        self._reports: dict[str, tuple[Shadow, Report]] = {}
        self._copies: set[asyncio.Task[None]] = set()

    def report(self, model: str, shadow: Shadow) -> Report:
        """Return the findings on a model's shadow since it was declared."""
        known = self._reports.get(model)
        if known is None or known[0] != shadow:
            self._reports[model] = known = shadow, Report(shadow.release, shadow.compare)
        return known[1]

    def copy(
        self,
        route: ShadowRoute,
        answering: Batcher,
        request: Request,
        payloads: Sequence[Payload],
        prediction: Prediction,
    ) -> None:
        """Copy an answered request to the shadow, if its share wants it; returns immediately."""
        shadow = route.declared
        if shadow.release == answering.name:
            return
        if random.random() >= shadow.share:  # noqa: S311 - traffic, not secrets
            return
        report = self.report(answering.model, shadow)
        if len(self._copies) >= MOST_COPIES or not route.batcher or not route.batcher.able:
            report.skipped += 1
            return
        if shadow.compare == "preprocessor":
            comparison = _tensors(report, answering, route.batcher, payloads)
        else:
            comparison = self._results(report, route.batcher, request, payloads, prediction)
        task = asyncio.create_task(self._compare(report, answering, route.batcher, comparison))
        self._copies.add(task)
        task.add_done_callback(self._copies.discard)

    async def close(self) -> None:
        """Cancel the copies in flight."""
        for task in self._copies:
            task.cancel()
        await asyncio.gather(*self._copies, return_exceptions=True)

    async def _compare(
        self,
        report: Report,
        answering: Batcher,
        copied: Batcher,
        comparison: Coroutine[Any, Any, None],
    ) -> None:
        in_flight, labels = self._predictor.in_flight, (copied.model, copied.name)
        try:
            with in_flight.held(copied), in_flight.held(answering):
                await comparison
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
        batcher: Batcher,
        request: Request,
        payloads: Sequence[Payload],
        prediction: Prediction,
    ) -> None:
        started = time.monotonic()
        deadline = Deadline.after(request.deadline.seconds)
        pending = PendingRequest("shadow", "shadow", deadline, len(payloads), started, shadow=True)
        copy = await self._predictor.answer(batcher, pending, payloads)
        extra = time.monotonic() - started - sum(prediction.stages.values())
        report.latency_ms += (extra * 1000 - report.latency_ms) / (report.requests + 1)
        for ours, theirs in zip(prediction.results, copy.results, strict=True):
            _note(report, msgspec.json.decode(ours), msgspec.json.decode(theirs))


async def _tensors(
    report: Report, answering: Batcher, copied: Batcher, payloads: Sequence[Payload]
) -> None:
    ours, theirs = await asyncio.gather(
        answering.preprocessing.preprocess(payloads), copied.preprocessing.preprocess(payloads)
    )
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
