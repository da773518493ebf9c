"""A request's whole life, one stage per line. Every front end calls `Predictor.predict`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import cast

from gateway_preprocessor import Payload, Prepared

from gateway.deadline import Deadline
from gateway.errors import DeadlineExceeded, Draining, Overloaded
from gateway.serving.admission import InFlight
from gateway.serving.batcher import Batcher
from gateway.serving.queue import PendingRequest
from gateway.serving.request import Prediction, Request, failure_of_input, failure_of_output
from gateway.serving.routing import RoutingTable
from gateway.serving.shadow import Shadows
from gateway.telemetry import metrics


class Predictor:
    """Answers requests according to `routing`, the latest routing table."""

    def __init__(self) -> None:
        self.routing = RoutingTable()
        self.in_flight = InFlight()
        self.shadows = Shadows(self)
        self.draining = False

    async def predict(self, request: Request) -> Prediction:
        """Answer all instances of a request by its deadline; a single is a batch of one.

        Raises GatewayError; either all instances are answered or none. Cancelling the task stops
        all work that no other request waits for.
        """
        if self.draining:
            raise Draining("The gateway is shutting down.")
        routes = self.routing.of(request.model)
        batcher = routes.choose(request.release, request.affinity)
        with self.in_flight.held(batcher):
            payloads = await request.payloads(batcher.description)
            now = time.monotonic()
            pending = PendingRequest(
                request.id, request.client, request.deadline, len(payloads), now
            )
            prediction = await self.answer(batcher, pending, payloads)
            if routes.shadow:
                self.shadows.copy(routes.shadow, batcher, request, payloads, prediction)
            return prediction

    def require_room(
        self, model: str, release: str | None, client: str, deadline: Deadline
    ) -> None:
        """Raise Overloaded if no release that may answer has room for even one instance.

        All this needs is a request's head, so that its body costs nothing.
        """
        if (routes := (self.routing.models or {}).get(model)) is None:
            return
        refusal: Overloaded | None = None
        for name in routes.weights if release is None else [release]:
            if (batcher := routes.batchers.get(name)) is None:
                return
            try:
                batcher.admission.require_room(1, client, deadline)
            except Overloaded as error:
                refusal = error
            else:
                return
        if refusal:
            raise refusal

    async def answer(
        self, batcher: Batcher, pending: PendingRequest, payloads: Sequence[Payload]
    ) -> Prediction:
        """Answer with this batcher: admit, then preprocess, infer and postprocess."""
        batcher.require_able()
        with batcher.admission.charge(pending.rows, pending.client, pending.deadline):
            try:
                async with asyncio.timeout_at(pending.deadline.at):
                    prepared = await batcher.preprocess(pending, payloads)
                    for row in prepared:
                        if isinstance(row, Exception):
                            raise failure_of_input(prepared, pending.id)
                    inferred = await batcher.infer(pending, cast("list[Prepared]", prepared))
                    results = await batcher.postprocess(pending, inferred)
                    for result in results:
                        if isinstance(result, Exception):
                            raise failure_of_output(results, pending.id)
            except (TimeoutError, asyncio.CancelledError) as error:
                metrics.dropped(batcher.model, pending.place).inc(pending.rows)
                if isinstance(error, asyncio.CancelledError):
                    raise
                allowed = f"{pending.deadline.seconds * 1000:.0f} ms"
                raise DeadlineExceeded(f"No answer within {allowed}.") from None
            finally:
                if pending.waiting_since is not None:
                    pending.leave_queue(time.monotonic())
                if not pending.shadow:
                    share = pending.queued / pending.deadline.seconds
                    metrics.queue_ratio(batcher.model).observe(share)
        stages = {"queue": pending.queued} | pending.stages
        return Prediction(batcher.stamps, cast("list[bytes]", results), stages)
