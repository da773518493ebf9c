"""The routing table: which batcher answers a request. Immutable; the control plane publishes it."""

from __future__ import annotations

import hashlib
import itertools
import random
from bisect import bisect_right
from collections.abc import Mapping
from typing import NamedTuple

from gateway.errors import ReleaseNotReady, UnknownModel, UnknownRelease
from gateway.releases.manifest import Shadow
from gateway.serving.batcher import Batcher


class ShadowRoute(NamedTuple):
    """A shadow as declared, and the batcher of its release; None while that cannot answer."""

    declared: Shadow
    batcher: Batcher | None


class ModelRoutes(NamedTuple):
    """One model: its releases, the batchers of those that can answer, and the applied weights."""

    model: str
    releases: frozenset[str] = frozenset()
    batchers: Mapping[str, Batcher] = {}
    weights: Mapping[str, int] = {}
    shadow: ShadowRoute | None = None

    def choose(self, pin: str | None, affinity: str | None) -> Batcher:
        """Return the pinned release's batcher, or else one by weight; one affinity, one release.

        Raises UnknownRelease, ReleaseNotReady.
        """
        if pin is not None and pin not in self.releases:
            raise UnknownRelease(f"Model {self.model!r} has no release {pin[:64]!r}.")
        name = pin if pin is not None else self._draw(affinity)
        if (batcher := self.batchers.get(name)) is None:
            which = f"release {name!r}" if name else "any release"
            raise ReleaseNotReady(
                f"Model {self.model!r} cannot serve {which} now; GET /models/{self.model} says why."
            )
        return batcher

    def _draw(self, affinity: str | None) -> str:
        """Draw a release by weight: at random, or where the affinity key's digest falls."""
        if len(self.weights) < 2:  # noqa: PLR2004 - no choice
            return next(iter(self.weights), "")
        names = sorted(self.weights)
        bounds = list(itertools.accumulate(map(self.weights.__getitem__, names)))
        if affinity is None:
            point = random.randrange(bounds[-1])  # noqa: S311 - traffic, not secrets
        else:
            key = hashlib.blake2b(f"{self.model}\0{affinity}".encode(), digest_size=8).digest()
            point = int.from_bytes(key) * bounds[-1] >> 64  # a share of the whole, as at random
        return names[bisect_right(bounds, point)]


class RoutingTable(NamedTuple):
    """All models; None until the declarations have been read for the first time."""

    models: Mapping[str, ModelRoutes] | None = None

    def of(self, model: str) -> ModelRoutes:
        """Return the routes of a model. Raises UnknownModel, ReleaseNotReady."""
        if self.models is None:
            raise ReleaseNotReady("The gateway is starting.")
        if (routes := self.models.get(model)) is None:
            raise UnknownModel(f"No model {model[:64]!r} is served; GET /models lists them.")
        return routes
