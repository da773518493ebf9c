"""`GET /livez`, `GET /readyz` and `GET /metrics`, for orchestrators and Prometheus."""

from __future__ import annotations

from http import HTTPStatus

from prometheus_client import CONTENT_TYPE_LATEST

from gateway.control.readiness import Readiness
from gateway.control.reconciler import Reconciler
from gateway.control.states import GatewayState
from gateway.errors import UnknownModel
from gateway.http.base import Handler
from gateway.telemetry import exposition


class Live(Handler):
    """Whether the process answers at all."""

    endpoint = "livez"
    probe = True

    def get(self) -> None:
        """Answer, which proves it."""
        self.write_json({"status": "alive"})

    head = get


class Ready(Handler):
    """Whether requests can be answered, and which parts are dead."""

    endpoint = "readyz"
    probe = True

    def initialize(self, readiness: Readiness, reconciler: Reconciler) -> None:
        """Configure the handler (Tornado's hook)."""
        self._readiness = readiness
        self._reconciler = reconciler

    def get(self) -> None:
        """Answer 200 while ready or degraded, else 503; `?model=` judges one model."""
        model = self.get_query_argument("model", None)
        if model is not None and model not in self._reconciler.models:
            raise UnknownModel(f"No model {model[:64]!r} is declared; GET /models lists them.")
        state, problems = self._readiness.status(model)
        if state is GatewayState.NOT_READY:
            self.set_status(HTTPStatus.SERVICE_UNAVAILABLE)
            self.set_header("Retry-After", "1")
        self.write_json({"status": state, "problems": problems})

    head = get


class Metrics(Handler):
    """Prometheus metrics."""

    endpoint = "metrics"
    probe = True

    def initialize(self, readiness: Readiness, reconciler: Reconciler) -> None:
        """Configure the handler (Tornado's hook)."""
        self._readiness = readiness
        self._reconciler = reconciler

    def get(self) -> None:
        """Render all metrics."""
        self._readiness.show()
        models = self._reconciler.models
        present = {(model, name) for model, state in models.items() for name in state.runtimes}
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        self.finish(exposition.render(present))

    head = get
