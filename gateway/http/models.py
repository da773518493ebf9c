"""`GET /models` and `GET /models/{model}`: what is served, and how to ask for it."""

from __future__ import annotations

from typing import Any

from gateway.errors import UnknownModel
from gateway.http.base import Handler
from gateway.serving.live import Live
from gateway.serving.pipeline import Pipeline, Traffic
from gateway.serving.shadow import Shadows


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

    head = get


class Model(Handler):
    """One model: releases, traffic, schemas, examples."""

    endpoint = "models"

    def initialize(self, pipeline: Pipeline) -> None:
        """Take what the route is configured with."""
        self._pipeline = pipeline

    def get(self, model: str) -> None:
        """Describe the model. Raises UnknownModel."""
        if (traffic := self._pipeline.traffic.get(model)) is None:
            raise UnknownModel(f"No model {model[:64]!r} is served; GET /models lists them.")
        details = {"releases": {name: _release(live) for name, live in traffic.lives.items()}}
        self.write_json(_summary(model, traffic) | details)

    head = get


class ModelShadow(Handler):
    """How a model's shadow release differs from the one that answers."""

    endpoint = "models"

    def initialize(self, pipeline: Pipeline, shadows: Shadows) -> None:
        """Take what the route is configured with."""
        self._pipeline = pipeline
        self._shadows = shadows

    def get(self, model: str) -> None:
        """Report what was seen so far; null without a shadow. Raises UnknownModel."""
        if model not in self._pipeline.traffic:
            raise UnknownModel(f"No model {model[:64]!r} is served; GET /models lists them.")
        self.write_json({"model": model, "shadow": self._shadows.report(model)})

    head = get


def _summary(model: str, traffic: Traffic) -> dict[str, Any]:
    return {
        "model": model,
        "single": f"/{model}_single_predict",
        "batch": f"/{model}_batch_predict",
        "traffic": traffic.weights,
        "declared_traffic": traffic.declared.traffic,
        "shadow": traffic.declared.shadow,
        "releases": {name: _state(live) for name, live in traffic.lives.items()},
        "unloaded": sorted(traffic.declared.releases.keys() - traffic.declared.loaded.keys()),
    }


def _state(live: Live) -> dict[str, Any]:
    state, reason = live.state
    return {
        "model_version": live.release.model_version,
        "preprocessor": live.release.preprocessor,
        "state": state,
    } | ({"reason": reason} if reason else {})


def _release(live: Live) -> dict[str, Any]:
    if live.identity is None:
        return _state(live)
    shown = live.identity.description
    return _state(live) | {
        "isolation": live.release.isolation,
        "python": live.identity.python,
        "libraries": live.libraries,
        "media_types": ["application/json", *shown.media_types],
        "input_schema": shown.input_schema,
        "parameters_schema": shown.parameters_schema,
        "output_schema": shown.output_schema,
        "examples": shown.examples,
    }
