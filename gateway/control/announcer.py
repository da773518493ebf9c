"""Tells people what becomes of models and releases: each change once, in one line.

On the terminal and in the log alike, while the gateway starts as well as later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import structlog

from gateway.control.definition import Definition
from gateway.control.effect import Effect, split
from gateway.control.model_state import ModelState
from gateway.control.release_runtime import ReleaseRuntime
from gateway.control.states import EffectState, ReleaseState, ReleaseStatus
from gateway.errors import public

log = structlog.get_logger(__name__)

#: How the log tells of a state, and how grave that is; other states pass by untold.
EVENTS = {
    ReleaseState.READY: (logging.INFO, "release ready"),
    ReleaseState.UNAVAILABLE: (logging.WARNING, "release unavailable"),
    ReleaseState.REJECTED: (logging.ERROR, "release rejected"),
}
#: A model and a release.
Key = tuple[str, str]
Told = tuple[Definition, ReleaseStatus]


class Announcer:
    """Compares the models' states with what was told last. `say` prints a line for people."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        #: By model and release: what is being loaded, and what was told last of the release, and
        #: of a newer definition of it that could not replace it.
        self._loading: dict[Key, str] = {}
        self._releases: dict[Key, Told] = {}
        self._newer: dict[Key, Told] = {}
        self._traffic: dict[str, str] = {}

    def loading(self, model: str, name: str, preprocessor: str) -> None:
        """Tell that a release is being loaded: a new one, or one declared or locked anew."""
        if self._loading.get((model, name)) != preprocessor:
            self._loading[model, name] = preprocessor
            self._say(f"loading {model}, release {name}: {preprocessor}")
            log.info("release loading", model=model, release=name, preprocessor=preprocessor)

    def broken(self, model: str, problem: str) -> None:
        """Tell that a model's files cannot be read or, without a problem, can be read again."""
        if problem:
            self._say(f"broken: {model}: {public(problem)}")
            log.error("the model's files cannot be read", model=model, reason=problem)
        else:
            self._say(f"mended: {model}: its files can be read again")
            log.info("the model's files can be read again", model=model)

    def look(self, models: Mapping[str, ModelState]) -> None:
        """Tell what has changed since the last look."""
        for model, state in models.items():
            for name, runtime in state.runtimes.items():
                self._look_at_release(self._releases, (model, name), runtime)
            for name, runtime in state.newer.items():
                if runtime.rejected:
                    note = "; it serves as it was declared before"
                    self._look_at_release(self._newer, (model, name), runtime, note)
            if state.started and state.declaration.manifest:
                self._look_at_traffic(model, Effect.of(state))
        self._look_for_removed(models)

    def _look_for_removed(self, models: Mapping[str, ModelState]) -> None:
        for model, name in list(self._releases):
            state = models.get(model)
            if state is None or name not in state.runtimes:
                for told in (self._loading, self._releases, self._newer):
                    told.pop((model, name), None)
                self._say(f"removed: {model}, release {name}")
                log.info("release removed", model=model, release=name)
        for model in self._traffic.keys() - models.keys():
            del self._traffic[model]

    def _look_at_release(
        self, last: dict[Key, Told], key: Key, runtime: ReleaseRuntime, note: str = ""
    ) -> None:
        status, (model, name) = runtime.status, key
        if status.state not in EVENTS or last.get(key) == (runtime.definition, status):
            return
        last[key] = (runtime.definition, status)
        self._loading.pop(key, None)
        reason = f"{status.reason}{note}"
        self._say(f"{status.state}: {model}, release {name}{': ' if reason else ''}{reason}")
        level, event = EVENTS[status.state]
        log.log(level, event, model=model, release=name, **({"reason": reason} if reason else {}))

    def _look_at_traffic(self, model: str, effect: Effect) -> None:
        """Tell how requests are split, and why not as declared; at the start only if so."""
        if not effect.as_declared and effect.state is EffectState.PENDING:
            return  # it is on its way
        parts = [split(effect.applied)]
        if not effect.as_declared:
            parts[0] += f" stays in force although {split(effect.declared)} is declared"
            parts += effect.reasons
        line, before = "; ".join([*parts, *effect.remarks]), self._traffic.get(model)
        self._traffic[model] = line
        if before != line and (before or not effect.as_declared or effect.remarks):
            self._say(f"traffic: {model}: {line}")
            log.info("traffic", model=model, told=line)
