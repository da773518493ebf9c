"""How the workers of a preprocessor are."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class WorkerState(StrEnum):
    """What a release can expect of its preprocessor."""

    READY = "ready"
    DOWN = "down"  # no worker answers; one is started again
    REFUSED = "refused"  # a worker came up that differs from the one that was verified


class WorkerStatus(NamedTuple):
    """The state, and its reason for operators; empty where the state says it all."""

    state: WorkerState
    reason: str = ""
