"""The states of a preprocessor's workers."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class WorkerState(StrEnum):
    """What a release can expect of its preprocessor."""

    READY = "ready"
    DOWN = "down"  # no worker answers; they are being restarted
    REFUSED = "refused"  # a worker started that differs from the verified one


class WorkerStatus(NamedTuple):
    """The state, and its reason for operators; empty where the state says it all."""

    state: WorkerState
    reason: str = ""
