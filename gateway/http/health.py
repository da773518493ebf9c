"""`GET /livez`, `GET /readyz` and `GET /metrics`: what orchestrators and Prometheus ask."""

from __future__ import annotations

from http import HTTPStatus

from prometheus_client import CONTENT_TYPE_LATEST

from gateway.http.base import Handler
from gateway.serving import readiness
from gateway.serving.pipeline import Pipeline
from gateway.telemetry import metrics


class Live(Handler):
    """Whether the process answers at all."""

    endpoint = "livez"
    probe = True

    def get(self) -> None:
        """Answer, which is the proof."""
        self.write_json({"status": "alive"})

    head = get


class Ready(Handler):
    """Whether every release that gets traffic can be served."""

    endpoint = "readyz"
    probe = True

    def initialize(self, pipeline: Pipeline) -> None:
        """Take what the route is configured with."""
        self._pipeline = pipeline

    def get(self) -> None:
        """Answer 200, or 503 with every reason."""
        problems = self._pipeline.problems()
        if problems:
            self.set_status(HTTPStatus.SERVICE_UNAVAILABLE)
            self.set_header("Retry-After", "1")
        status = "not ready" if problems else "ready"
        warnings = self._pipeline.warnings()
        self.write_json({"status": status, "problems": problems, "warnings": warnings})

    head = get


class Metrics(Handler):
    """Prometheus metrics."""

    endpoint = "metrics"
    probe = True

    def initialize(self, pipeline: Pipeline) -> None:
        """Take what the route is configured with."""
        self._pipeline = pipeline

    def get(self) -> None:
        """Render all metrics as of now."""
        readiness.show(self._pipeline)
        present = {(m, name) for m, item in self._pipeline.traffic.items() for name in item.lives}
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        self.finish(metrics.render(present))

    head = get
