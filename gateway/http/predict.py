"""`POST /{model}_single_predict` and `POST /{model}_batch_predict`."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
from gateway_preprocessor import JSON, Payload

from gateway.errors import BadHeader
from gateway.http import envelope
from gateway.http.base import Bodied
from gateway.serving.job import Job
from gateway.serving.lane import Lane
from gateway.serving.pipeline import Pipeline
from gateway.serving.shadow import Shadows
from gateway.settings import Settings

#: Bodies above this many bytes are taken apart in a thread: the event loop goes on meanwhile.
LARGE = 256 << 10
#: What the log shows where the client did not wait for its answer (nginx's convention).
CLIENT_CLOSED = 499
_WHOLE = re.compile(r"[0-9]{1,9}")


class Form(NamedTuple):
    """What tells the two endpoints apart: how a body is read, and how results are framed."""

    endpoint: str
    read: Callable[[str, bytes, Sequence[str], int], list[Payload]]
    opening: bytes
    closing: bytes


SINGLE = Form("single", envelope.single, b'{"output":', b",")
BATCH = Form("batch", envelope.batch, b'{"outputs":[', b"],")


class Predict(Bodied):
    """Reads a request, has the pipeline answer it, and frames the results with their stamps."""

    def initialize(
        self, form: Form, pipeline: Pipeline, shadows: Shadows, settings: Settings
    ) -> None:
        """Take what the route is configured with."""
        self.endpoint = form.endpoint
        self._form = form
        self._pipeline = pipeline
        self._shadows = shadows
        self._settings = settings
        self.limit = settings.max_body_bytes
        self._gone = False
        self._job: Job | None = None

    def on_connection_close(self) -> None:
        """Stop working for a client that has gone."""
        self._gone = True
        if self._job is not None:
            self._job.answer.cancel()

    async def post(self, model: str) -> None:
        """Answer with the results, or raise GatewayError."""
        given = self.request.headers
        if model in self._pipeline.traffic:
            self.model = model
        lane = self._pipeline.route(model, given.get("X-Release"), given.get("X-Affinity-Key"))
        with self._pipeline.opened(lane):
            arrived, seconds = time.monotonic(), self._seconds()
            payloads = await self._payloads(lane)
            job = Job(payloads, seconds - (time.monotonic() - arrived), self.request_id)
            self._job = job
            if self._gone:
                job.answer.cancel()
            try:
                answer = await self._pipeline.predict(lane, job)
            except asyncio.CancelledError:
                if not self._gone:
                    raise
                self.set_status(CLIENT_CLOSED, "Client closed request")
                return
            self.set_header("Content-Type", "application/json")
            self.set_header("X-Release", lane.name)
            self.set_header("Server-Timing", _timing(answer.stages))
            form, stamps = self._form, msgspec.json.encode(lane.stamps)[1:]
            self._shadows.copy(lane, payloads, answer, seconds)
            await self.finish(form.opening + b",".join(answer.results) + form.closing + stamps)

    async def _payloads(self, lane: Lane) -> list[Payload]:
        body = self.body()
        given = self.request.headers.get("Content-Type", JSON)
        read, media_types = self._form.read, lane.description.media_types
        rows = self._settings.max_batch_rows
        if len(body) > LARGE:
            return await asyncio.to_thread(read, given, body, media_types, rows)
        return read(given, body, media_types, rows)

    def _seconds(self) -> float:
        longest = self._settings.request_timeout_ms
        given = self.request.headers.get("X-Request-Timeout-Ms", str(longest))
        if not (_WHOLE.fullmatch(given) and 0 < int(given) <= longest):
            raise BadHeader(f"X-Request-Timeout-Ms must be a whole number from 1 to {longest}.")
        return int(given) / 1000


def _timing(stages: dict[str, float]) -> str:
    return ", ".join([f"{stage};dur={seconds * 1000:.2f}" for stage, seconds in stages.items()])
