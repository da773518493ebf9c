"""The states of releases, of declarations and of the gateway."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class ReleaseState(StrEnum):
    """From its declaration to traffic.

    loading → aligning → ready: a release is decided once it has left the first two. An unavailable
    release recovers by itself; a rejected one is retried when its declaration or lock changes, and
    every half minute.
    """

    LOADING = "loading"  # environment and workers are being prepared
    ALIGNING = "aligning"  # Triton loads its model version, or it is being verified
    READY = "ready"
    UNAVAILABLE = "unavailable"
    REJECTED = "rejected"

    @property
    def decided(self) -> bool:
        """Whether it is known that the release can, or cannot, answer."""
        return self not in (ReleaseState.LOADING, ReleaseState.ALIGNING)


class ReleaseStatus(NamedTuple):
    """The state, and its reason for operators; empty where the state says it all."""

    state: ReleaseState
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.state}: {self.reason}" if self.reason else str(self.state)


class EffectState(StrEnum):
    """Whether a model's declaration is in force."""

    IN_FORCE = "in force"
    PENDING = "pending"  # a release is still being loaded or verified, or recovers
    REFUSED = "refused"  # a release was rejected, or a file cannot be read: what was in force stays


class GatewayState(StrEnum):
    """What `/readyz` answers: 200 while ready or degraded, 503 while not ready."""

    READY = "ready"
    DEGRADED = "degraded"  # answers requests, but some part is dead
    NOT_READY = "not ready"


class GatewayStatus(NamedTuple):
    """The state, and what is wrong, by part: `model/release`, `model`, `triton host:port`."""

    state: GatewayState
    problems: dict[str, str]
