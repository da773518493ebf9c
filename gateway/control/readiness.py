"""Whether the gateway is ready: the answer of `/readyz`, and log lines when it changes.

Every gateway process observes itself, whether or not it is probed: when several share a port, each
scrape and each probe reaches only one of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog

from gateway.control.model_state import ModelState
from gateway.control.reconciler import Reconciler
from gateway.control.states import GatewayState, GatewayStatus, ReleaseState
from gateway.errors import public
from gateway.serving.predict import Predictor
from gateway.settings import Settings
from gateway.telemetry import metrics
from gateway.telemetry.usage import Usage
from gateway.triton.pool import TritonPool

log = structlog.get_logger(__name__)


class Readiness:
    """Judges one gateway. `triton_problem` returns why the embedded Triton is down."""

    def __init__(
        self,
        settings: Settings,
        predictor: Predictor,
        reconciler: Reconciler,
        triton: TritonPool,
        triton_problem: Callable[[], str],
    ) -> None:
        self._settings = settings
        self._predictor = predictor
        self._reconciler = reconciler
        self._triton = triton
        self._triton_problem = triton_problem
        self._last: GatewayStatus | None = None
        self._usage = Usage()

    def status(self, model: str | None = None) -> GatewayStatus:
        """Return the present state of the whole gateway, or of one model."""
        models = self._reconciler.models
        problems = self._of_triton()
        if model is None and self._reconciler.problem:
            problems["repository"] = public(self._reconciler.problem)
        for name, item in models.items():
            if model in (None, name):
                problems |= _of_model(name, item) | self._ailing(name)
        if model is None:
            obstacle = self._obstacle(models)
        else:
            obstacle = {} if _answers(models.get(model)) else {model: "cannot answer"}
        if self._predictor.draining:
            obstacle = {"gateway": "shutting down"}
        if obstacle or not self._triton.reachable:
            return GatewayStatus(GatewayState.NOT_READY, obstacle | problems)
        state = GatewayState.DEGRADED if problems else GatewayState.READY
        return GatewayStatus(state, problems)

    async def watch(self) -> None:
        """Observe the gateway every `watch_seconds`, until cancelled."""
        while True:
            try:
                self._look()
                self.show()
                self._usage.look(self._workers())
            except Exception:
                log.exception("observing the gateway failed")
            await asyncio.sleep(self._settings.watch_seconds)

    def _workers(self) -> list[int]:
        """Return the worker processes that this gateway runs."""
        models = self._reconciler.models.values()
        shared = {pid for state in models for one in state.runtimes.values() for pid in one.pids}
        return sorted(shared)

    def show(self) -> None:
        """Set the gauges of every release."""
        for model, state in self._reconciler.models.items():
            for name, runtime in state.runtimes.items():
                ready, rejected, weight = metrics.standing(model, name)
                states = {runtime.status.state, state.newer.get(name, runtime).status.state}
                ready.set(runtime.status.state is ReleaseState.READY)
                rejected.set(ReleaseState.REJECTED in states)
                weight.set(state.weights.get(name, 0))

    def _look(self) -> None:
        """Log changes of readiness; a warning if a part died or readiness was lost."""
        before, self._last = self._last, self.status()
        state, problems = self._last
        parts_changed = before and before.problems.keys() != problems.keys()
        if (
            before
            and before.state is state
            and not (state is GatewayState.DEGRADED and parts_changed)
        ):
            return
        lost = before is not None and before.state is not GatewayState.NOT_READY
        if state is GatewayState.READY:
            log.info("ready")
        elif state is GatewayState.DEGRADED or (lost and not self._predictor.draining):
            log.warning(str(state), problems=problems)
        else:
            log.info(str(state), problems=problems)

    def _of_triton(self) -> dict[str, str]:
        problems = {
            f"triton {replica.endpoint}": public(replica.status.reason)
            for replica in self._triton.replicas
            if not replica.up
        }
        for name, reason in self._triton.unresolved.items():
            problems[f"triton {name}"] = public(reason)
        if reason := self._triton_problem():
            problems["embedded triton"] = reason
        return problems

    def _ailing(self, model: str) -> dict[str, str]:
        """Return the replicas on which calls of a model keep failing."""
        return {
            f"{model} on triton {replica.endpoint}": public(ailing[model])
            for replica in self._triton.replicas
            if model in (ailing := replica.ailing)
        }

    def _obstacle(self, models: Mapping[str, ModelState]) -> dict[str, str]:
        """Return what keeps the whole gateway from being ready."""
        if not self._reconciler.started:
            return {"gateway": "starting"} | {
                f"{model}/{name}": str(one.status)
                for model, state in models.items()
                for name, one in state.runtimes.items()
                if not one.status.state.decided
            }
        missing = {
            model: "is required and cannot answer"
            for model in self._settings.ready_requires
            if not _answers(models.get(model))
        }
        if not any(state.answering for state in models.values()):
            return {"gateway": "no model can answer"} | missing
        return missing


def _answers(state: ModelState | None) -> bool:
    return state is not None and state.answering


def _of_model(model: str, state: ModelState) -> dict[str, str]:
    """Return the dead parts of a model."""
    problems = {}
    if state.declaration.problem:
        problems[model] = public(state.declaration.problem)
    for name, runtime in state.runtimes.items():
        status = runtime.status
        if status.state in (ReleaseState.REJECTED, ReleaseState.UNAVAILABLE):
            problems[f"{model}/{name}"] = str(status)
        problems |= runtime.dead
    for name, runtime in state.newer.items():
        if runtime.rejected:
            told = f"as declared now it is {runtime.status}; it serves as it was declared before"
            problems.setdefault(f"{model}/{name}", told)
    return problems
