"""`POST /{model}_single_predict` and `POST /{model}_batch_predict`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
from gateway_preprocessor import JSON, Description, Payload
from tornado.iostream import StreamClosedError

from gateway.deadline import Deadline
from gateway.errors import BadHeader
from gateway.http import envelope
from gateway.http.base import Bodied, BodyRoom
from gateway.http.costs import Costs
from gateway.serving.predict import Predictor
from gateway.serving.request import Request
from gateway.settings import Settings

#: Bodies above this many bytes are decoded in a thread, to keep the event loop free.
LARGE = 256 << 10
#: Status in the log if the client did not wait for its answer (nginx's convention).
CLIENT_CLOSED = 499
_WHOLE = re.compile(r"[0-9]{1,9}")


class Form(NamedTuple):
    """How the two endpoints differ: reading bodies and framing results."""

    endpoint: str
    read: Callable[[str, bytes, Sequence[str], int], list[Payload]]
    opening: bytes
    closing: bytes


SINGLE = Form("single", envelope.single, b'{"output":', b",")
BATCH = Form("batch", envelope.batch, b'{"outputs":[', b"],")


class Predict(Bodied):
    """Translates between HTTP and the predictor."""

    def initialize(
        self, form: Form, predictor: Predictor, settings: Settings, room: BodyRoom
    ) -> None:
        """Configure the handler (Tornado's hook)."""
        self.room = room
        self.endpoint = form.endpoint
        self._form = form
        self._predictor = predictor
        self._settings = settings
        self.limit = settings.max_body_bytes
        self._gone = False
        self._task: asyncio.Task[Any] | None = None

    def on_connection_close(self) -> None:
        """Stop working for a client that has disconnected."""
        super().on_connection_close()
        self._gone = True
        if self._task is not None:
            self._task.cancel()

    def prepare_large(self) -> None:
        """Refuse a large body if no release of the model has room for even one instance."""
        pin, client = self.request.headers.get("X-Release"), self.request.remote_ip or ""
        self._predictor.require_room(self.path_args[0], pin, client, self._deadline())

    async def post(self, model: str) -> None:
        """Answer with the results, or raise GatewayError."""
        given = self.request.headers
        if model in (self._predictor.routing.models or ()):
            self.model = model
        request = Request(
            model,
            self._payloads,
            self._deadline(),
            self.request_id,
            self.request.remote_ip or "",
            release=given.get("X-Release"),
            affinity=given.get("X-Affinity-Key"),
        )
        self._task = asyncio.current_task()
        try:
            prediction = await self._predictor.predict(request)
        except asyncio.CancelledError:
            if not self._gone:
                raise
            self.set_status(CLIENT_CLOSED, "Client closed request")
            return
        finally:
            self._task = None
        self.set_header("Content-Type", "application/json")
        self.set_header("X-Release", prediction.stamps.release)
        self.set_header("Server-Timing", _timing(prediction.stages))
        form, stamps = self._form, msgspec.json.encode(prediction.stamps)[1:]
        with suppress(StreamClosedError):  # the client has left meanwhile
            await self.finish(form.opening + b",".join(prediction.results) + form.closing + stamps)

    async def _payloads(self, description: Description) -> list[Payload]:
        """Read the body's instances, as a release with this description accepts them."""
        body, media_types = self.body(), description.media_types
        if len(body) > LARGE:
            return await asyncio.to_thread(self._read, body, media_types)
        return self._read(body, media_types)

    def _read(self, body: bytes, media_types: Sequence[str]) -> list[Payload]:
        given, rows = self.request.headers.get("Content-Type", JSON), self._settings.max_batch_rows
        payloads = self._form.read(given, body, media_types, rows)
        # Otherwise nothing in it can be too large.
        if media_types or len(body) > self._settings.max_instance_bytes:
            Costs.of(self._settings).require(payloads, media_types)
        return payloads

    def _deadline(self) -> Deadline:
        longest = self._settings.request_timeout_ms
        given = self.request.headers.get("X-Request-Timeout-Ms", str(longest))
        if not (_WHOLE.fullmatch(given) and 0 < int(given) <= longest):
            raise BadHeader(f"X-Request-Timeout-Ms must be a whole number from 1 to {longest}.")
        return Deadline.after(int(given) / 1000)


def _timing(stages: Mapping[str, float]) -> str:
    return ", ".join([f"{stage};dur={seconds * 1000:.2f}" for stage, seconds in stages.items()])
