"""Whether what a model declares is in force in this gateway, and if not, why."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Self

from gateway.control.model_state import ModelState
from gateway.control.states import EffectState, ReleaseState, ReleaseStatus
from gateway.errors import public
from gateway.releases.history import shared
from gateway.releases.manifest import Manifest
from gateway.releases.rollout import remarks

#: Seconds between two looks at a change that is awaited.
PAUSE = 0.02


class Effect(NamedTuple):
    """What has become of a model's declared traffic and shadow.

    `applied` are the weights that split requests, `declared` those that should. `reasons` say why
    the declaration is not in force; `remarks` are for people and stop nothing.
    """

    state: EffectState
    reasons: list[str]
    remarks: list[str]
    declared: Mapping[str, int]
    applied: Mapping[str, int]

    @classmethod
    def of(cls, state: ModelState, loads: str | None = None) -> Self:
        """Return the effect of a model's declaration; the release that it `loads` must run, too."""
        manifest, problem = state.declaration.manifest, state.declaration.problem
        if manifest is None:
            return cls(EffectState.REFUSED, [public(problem)], [], {}, state.weights)
        wanted = shared(manifest.traffic)
        shadow = manifest.shadow.release if manifest.shadow else None
        names = dict.fromkeys(name for name in (*wanted, shadow, loads) if name)
        found = dict(_failing(state, names))
        rejected = any(status.state is ReleaseState.REJECTED for status in found.values())
        reasons = ([public(problem)] if problem else []) + [
            f"{release} is {status}" for release, status in found.items()
        ]
        if not reasons and state.weights != wanted:
            reasons = ["it is about to be applied"]
        verdict = EffectState.PENDING if reasons else EffectState.IN_FORCE
        if problem or rejected:
            verdict = EffectState.REFUSED
        return cls(verdict, reasons, remarks(manifest), wanted, state.weights)

    @property
    def as_declared(self) -> bool:
        """Whether requests are split as declared."""
        return self.applied == self.declared


def _failing(state: ModelState, names: Mapping[str, None]) -> Iterator[tuple[str, ReleaseStatus]]:
    """Yield the releases among `names` that do not answer as they are declared now."""
    for name in names:
        if (runtime := state.runtimes.get(name)) is None:
            yield f"release {name}", ReleaseStatus(ReleaseState.LOADING, "not running yet")
        elif not runtime.answering:
            yield f"release {name}", runtime.status
        elif name in state.newer:
            yield f"release {name}, as declared now,", state.newer[name].status


def split(weights: Mapping[str, int]) -> str:
    """Write weights as on the command line."""
    return " ".join(f"{name}={weight}" for name, weight in weights.items()) or "nothing"


async def settled(
    models: Callable[[], Mapping[str, ModelState]],
    model: str,
    declared: Manifest,
    seconds: float,
    loads: str | None = None,
) -> Effect | None:
    """Wait until a model's new declaration is in force or refused; return how it stands then.

    The release that it `loads` has to run, too. After `seconds` it returns how it stands; None if
    this gateway has not read the declaration.
    """
    deadline, effect = time.monotonic() + seconds, None
    while True:
        state = models().get(model)
        if state and (state.declaration.manifest == declared or state.declaration.problem):
            effect = Effect.of(state, loads)
        if (effect and effect.state is not EffectState.PENDING) or time.monotonic() >= deadline:
            return effect
        await asyncio.sleep(PAUSE)
