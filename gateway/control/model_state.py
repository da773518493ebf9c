"""What the control plane knows about one model: an immutable snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from gateway.control.declarations import Declaration
from gateway.control.release_runtime import ReleaseRuntime
from gateway.control.states import ReleaseState
from gateway.serving.routing import ModelRoutes, ShadowRoute


class ModelState(NamedTuple):
    """A model's declaration, what runs for each release name, and the applied weights.

    `newer` has the releases that serve as they were declared or locked before, with what has been
    declared since and is not verified yet. `started` says whether all releases have been ready or
    rejected once.
    """

    declaration: Declaration
    runtimes: Mapping[str, ReleaseRuntime] = {}
    weights: Mapping[str, int] = {}
    newer: Mapping[str, ReleaseRuntime] = {}
    started: bool = False

    @property
    def answering(self) -> bool:
        """Whether a release that receives traffic answers."""
        return any(self.runtimes[name].answering for name in self.weights if name in self.runtimes)

    def routes(self, model: str) -> ModelRoutes:
        """Return how requests are routed: to the releases that are up and not rejected."""
        batchers = {
            name: one.batcher
            for name, one in self.runtimes.items()
            if one.batcher and one.status.state is not ReleaseState.REJECTED
        }
        declared = self.declaration.manifest
        shadow = declared.shadow if declared else None
        route = ShadowRoute(shadow, batchers.get(shadow.release)) if shadow else None
        return ModelRoutes(model, frozenset(self.runtimes), batchers, self.weights, route)
