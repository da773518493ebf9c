"""`POST /{model}_single_predict` and `POST /{model}_batch_predict`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
from gateway_preprocessor import JSON, Payload

from gateway.errors import BadHeader, BodyTooLarge
from gateway.http import envelope
from gateway.http.base import Handler
from gateway.serving.lane import Lane
from gateway.serving.pipeline import Answer, Pipeline
from gateway.settings import Settings

#: Bodies above this many bytes are taken apart in a thread: the event loop goes on meanwhile.
LARGE = 256 << 10
#: What the log shows where the client did not wait for its answer (nginx's convention).
CLIENT_CLOSED = 499
_WHOLE = re.compile(r"[0-9]{1,9}")


class Form(NamedTuple):
    """What tells the two endpoints apart: how a body is read, and how results are framed."""

    endpoint: str
    read: Callable[[str, bytes, Sequence[str]], list[Payload]]
    opening: bytes
    closing: bytes


SINGLE = Form("single", envelope.single, b'{"output":', b",")
BATCH = Form("batch", envelope.batch, b'{"outputs":[', b"],")


class Predict(Handler):
    """Reads a request, has the pipeline answer it, and frames the results with their stamps."""

    def initialize(self, form: Form, pipeline: Pipeline, settings: Settings) -> None:
        """Take what the route is configured with."""
        self.endpoint = form.endpoint
        self._form = form
        self._pipeline = pipeline
        self._settings = settings
        self._chunks: list[bytes] = []
        self._size = 0
        self._work: asyncio.Task[Answer] | None = None

    def data_received(self, chunk: bytes) -> None:
        """Keep the body up to its limit; what comes beyond is read and dropped."""
        self._size += len(chunk)
        if self._size <= self._settings.max_body_bytes:
            self._chunks.append(chunk)

    def on_connection_close(self) -> None:
        """Stop working for a client that has gone."""
        if self._work is not None:
            self._work.cancel()

    async def post(self, model: str) -> None:
        """Answer with the results, or raise GatewayError."""
        lane = self._pipeline.route(model, self.request.headers.get("X-Release"))
        self.model = model
        with self._pipeline.opened():
            seconds = self._seconds()
            payloads = await self._payloads(lane)
            self._work = asyncio.ensure_future(self._pipeline.predict(lane, payloads, seconds))
            await asyncio.wait((self._work,))
            if self._work.cancelled():
                self.set_status(CLIENT_CLOSED, "Client closed request")
                return
            results, stages = self._work.result()
            self.set_header("Content-Type", "application/json")
            self.set_header("X-Release", lane.name)
            self.set_header("Server-Timing", _timing(stages))
            form, stamps = self._form, msgspec.json.encode(lane.stamps)[1:]
            await self.finish(form.opening + b",".join(results) + form.closing + stamps)

    async def _payloads(self, lane: Lane) -> list[Payload]:
        limit = self._settings.max_body_bytes
        if self._size > limit:
            raise BodyTooLarge(f"The body has {self._size} bytes; at most {limit} are read.")
        body = b"".join(self._chunks)
        self._chunks.clear()
        given = self.request.headers.get("Content-Type", JSON)
        read, media_types = self._form.read, lane.description.media_types
        if len(body) > LARGE:
            return await asyncio.to_thread(read, given, body, media_types)
        return read(given, body, media_types)

    def _seconds(self) -> float:
        longest = self._settings.request_timeout_ms
        given = self.request.headers.get("X-Request-Timeout-Ms", str(longest))
        if not (_WHOLE.fullmatch(given) and 0 < int(given) <= longest):
            raise BadHeader(f"X-Request-Timeout-Ms must be a whole number from 1 to {longest}.")
        return int(given) / 1000


def _timing(stages: dict[str, float]) -> str:
    return ", ".join(f"{stage};dur={seconds * 1000:.2f}" for stage, seconds in stages.items())
