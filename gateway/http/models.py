"""`GET /models` and `GET /models/{model}`: what is served, and how to request it."""

from __future__ import annotations

from typing import Any, NamedTuple

from gateway.control.effect import Effect
from gateway.control.model_state import ModelState
from gateway.control.reconciler import Reconciler
from gateway.control.release_runtime import ReleaseRuntime
from gateway.errors import UnknownModel, public
from gateway.http.base import Handler
from gateway.serving.shadow import Shadows


class Identity(NamedTuple):
    """Which gateway answers: its id, and how many gateways share its port."""

    gateway: str
    processes: int


class _Described(Handler):
    """Base of the handlers that describe models."""

    endpoint = "models"

    def initialize(self, reconciler: Reconciler, shadows: Shadows, identity: Identity) -> None:
        """Configure the handler (Tornado's hook)."""
        self._reconciler = reconciler
        self._shadows = shadows
        self._identity = identity._asdict()

    def state_of(self, model: str) -> ModelState:
        """Return a model's state. Raises UnknownModel."""
        if (state := self._reconciler.models.get(model)) is None:
            raise UnknownModel(f"No model {model[:64]!r} is served; GET /models lists them.")
        return state


class Models(_Described):
    """All models, briefly."""

    def get(self) -> None:
        """List the models."""
        models = self._reconciler.models
        found = [_summary(model, models[model]) for model in sorted(models)]
        self.write_json({"models": found} | self._identity)

    head = get


class Model(_Described):
    """One model: releases, traffic, schemas, examples."""

    def get(self, model: str) -> None:
        """Describe the model. Raises UnknownModel."""
        state = self.state_of(model)
        details = {"releases": {name: _release(one) for name, one in state.runtimes.items()}}
        self.write_json(_summary(model, state) | details | self._identity)

    head = get


class ModelShadow(_Described):
    """How a model's shadow differs from the releases that answer."""

    def get(self, model: str) -> None:
        """Answer the findings so far; null without a shadow. Raises UnknownModel."""
        declared = self.state_of(model).declaration.manifest
        shadow = declared.shadow if declared else None
        report = self._shadows.report(model, shadow) if shadow else None
        self.write_json({"model": model, "shadow": report})

    head = get


def _summary(model: str, state: ModelState) -> dict[str, Any]:
    declared, problem = state.declaration.manifest, state.declaration.problem
    effect = Effect.of(state)
    found: dict[str, Any] = {
        "model": model,
        "single": f"/{model}_single_predict",
        "batch": f"/{model}_batch_predict",
        "traffic": state.weights,
        "declared_traffic": declared.traffic if declared else {},
        "shadow": declared.shadow if declared else None,
        "releases": {name: _state(one) for name, one in state.runtimes.items()},
        "newer": {name: _state(one) for name, one in state.newer.items()},
        "unloaded": sorted(declared.releases.keys() - declared.loaded.keys()) if declared else [],
        "effect": shown(effect),
    }
    return found | ({"problem": public(problem)} if problem else {})


def shown(effect: Effect) -> dict[str, Any]:
    """Return what is told of a declaration's effect."""
    return {"state": effect.state, "reasons": effect.reasons, "remarks": effect.remarks}


def _state(runtime: ReleaseRuntime) -> dict[str, Any]:
    state, reason = runtime.status
    release = runtime.definition.release
    return {
        "model_version": release.model_version,
        "preprocessor": release.preprocessor,
        "state": state,
    } | ({"reason": reason} if reason else {})


def _release(runtime: ReleaseRuntime) -> dict[str, Any]:
    if runtime.identity is None:
        return _state(runtime)
    shown = runtime.identity.description
    return _state(runtime) | {
        "isolation": runtime.definition.release.isolation,
        "python": runtime.identity.python,
        "libraries": runtime.libraries,
        "media_types": ["application/json", *shown.media_types],
        "input_schema": shown.input_schema,
        "parameters_schema": shown.parameters_schema,
        "output_schema": shown.output_schema,
        "examples": shown.examples,
    }
