"""`GET /models` and `GET /models/{model}`: what is served, and how to ask for it."""

from __future__ import annotations

from typing import Any

from gateway.errors import UnknownModel
from gateway.http.base import Handler
from gateway.serving.lane import Lane
from gateway.serving.pipeline import Pipeline, Traffic


class Models(Handler):
    """All models, briefly."""

    endpoint = "models"

    def initialize(self, pipeline: Pipeline) -> None:
        """Take what the route is configured with."""
        self._pipeline = pipeline

    def get(self) -> None:
        """List the models."""
        traffic = self._pipeline.traffic
        self.write_json({"models": [_summary(model, traffic[model]) for model in sorted(traffic)]})


class Model(Handler):
    """One model: releases, traffic, schemas, examples."""

    endpoint = "models"

    def initialize(self, pipeline: Pipeline) -> None:
        """Take what the route is configured with."""
        self._pipeline = pipeline

    def get(self, model: str) -> None:
        """Describe the model. Raises UnknownModel."""
        if (traffic := self._pipeline.traffic.get(model)) is None:
            raise UnknownModel(f"No model {model!r} is served; GET /models lists them.")
        details = {"releases": {name: _release(lane) for name, lane in traffic.lanes.items()}}
        self.write_json(_summary(model, traffic) | details)


def _summary(model: str, traffic: Traffic) -> dict[str, Any]:
    return {
        "model": model,
        "single": f"/{model}_single_predict",
        "batch": f"/{model}_batch_predict",
        "traffic": traffic.weights,
        "releases": {name: _state(lane) for name, lane in traffic.lanes.items()},
    }


def _state(lane: Lane) -> dict[str, Any]:
    problem = lane.problem
    state = {"state": "unavailable", "reason": problem} if problem else {"state": "ready"}
    stamps = {name: lane.stamps[name] for name in ("model_version", "preprocessor")}
    return stamps | state


def _release(lane: Lane) -> dict[str, Any]:
    shown = lane.description
    return _state(lane) | {
        "media_types": ["application/json", *shown.media_types],
        "input_schema": shown.input_schema,
        "parameters_schema": shown.parameters_schema,
        "output_schema": shown.output_schema,
        "examples": shown.examples,
    }
