"""Readiness: which parts make the gateway ready, degraded or not ready, and what is logged of it.

The parts stand in as values: only a table of them covers states that last for a moment.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.control.declarations import Declaration
from gateway.control.model_state import ModelState
from gateway.control.readiness import Readiness
from gateway.control.states import GatewayState, ReleaseState, ReleaseStatus
from gateway.settings import Settings

STARTING = ReleaseState.ALIGNING


def release(
    state: ReleaseState = ReleaseState.READY, reason: str = "", dead: dict[str, str] | None = None
) -> Any:
    return SimpleNamespace(
        status=ReleaseStatus(state, reason),
        answering=state is ReleaseState.READY,
        dead=dead or {},
        batcher=None,
        pids=(),
    )


def model(problem: str = "", **releases: Any) -> ModelState:
    """Each release has the same share of the traffic."""
    runtimes = {name.removeprefix("r"): one for name, one in releases.items()}
    return ModelState(Declaration(problem=problem), runtimes, dict.fromkeys(runtimes, 1))


class Gateway:
    """A gateway's parts, which a test sets as it likes."""

    def __init__(self, models: dict[str, ModelState], **settings: Any) -> None:
        self.predictor: Any = SimpleNamespace(draining=False)
        self.reconciler: Any = SimpleNamespace(models=models, problem="", started=True)
        self.triton: Any = SimpleNamespace(replicas=[], unresolved={}, reachable=True)
        self.triton_problem = ""
        self.readiness = Readiness(
            Settings(**settings),
            self.predictor,
            self.reconciler,
            self.triton,
            lambda: self.triton_problem,
        )

    def shown(self, model: str | None = None) -> tuple[str, dict[str, str]]:
        state, problems = self.readiness.status(model)
        return str(state), problems


def test_all_is_well() -> None:
    assert Gateway({"a": model(r1=release()), "b": model(r1=release())}).shown() == ("ready", {})


def test_a_dead_part_degrades_and_is_named() -> None:
    gateway = Gateway(
        {
            "a": model(r1=release(), r2=release(ReleaseState.REJECTED, "off by 1")),
            "b": model("/srv/b/releases.toml:1: no TOML", r1=release()),
            "c": model(r1=release(dead={"c-preprocessor worker 2": "was killed"})),
        }
    )
    replica = SimpleNamespace(
        endpoint="h:1",
        up=False,
        status=SimpleNamespace(reason="no answer"),
        ailing={"a": "half dead: 3 of 9 calls failed"},
    )
    gateway.triton.replicas = [replica]
    gateway.triton.unresolved = {"dns:tritons:1": "cannot be looked up"}
    gateway.triton_problem = "tritonserver was ended by SIGKILL"
    assert gateway.shown() == (
        "degraded",
        {
            "triton h:1": "no answer",
            "triton dns:tritons:1": "cannot be looked up",
            "a on triton h:1": "half dead: 3 of 9 calls failed",
            "embedded triton": "tritonserver was ended by SIGKILL",
            "a/2": "rejected: off by 1",
            "b": "releases.toml:1: no TOML",  # without the path
            "c-preprocessor worker 2": "was killed",
        },
    )
    parts = {"triton h:1", "triton dns:tritons:1", "a on triton h:1", "embedded triton", "a/2"}
    assert gateway.shown("a")[1].keys() == parts
    assert gateway.shown("c")[1].keys() == parts - {"a on triton h:1", "a/2"} | {
        "c-preprocessor worker 2"
    }


def test_a_release_without_traffic_that_is_down_costs_no_readiness() -> None:
    only_first = model(r1=release(), r2=release(ReleaseState.UNAVAILABLE, "x"))
    only_first = only_first._replace(weights={"1": 100})
    assert Gateway({"a": only_first}).shown() == ("degraded", {"a/2": "unavailable: x"})


def test_until_it_has_started_it_names_what_is_under_way() -> None:
    gateway = Gateway({"a": model(r1=release(), r2=release(STARTING, "being verified"))})
    gateway.reconciler.started = False
    assert gateway.shown() == (
        "not ready",
        {"gateway": "starting", "a/2": "aligning: being verified"},
    )
    assert gateway.shown("a") == ("ready", {})  # one of its releases answers


@pytest.mark.parametrize("required", [(), ("a",), ("absent",)])
def test_what_is_required_must_answer_and_something_must(required: tuple[str, ...]) -> None:
    down = model(r1=release(ReleaseState.UNAVAILABLE, "x"))
    gateway = Gateway({"a": down, "b": model(r1=release())}, ready_requires=required)
    state, problems = gateway.shown()
    assert state == ("not ready" if required else "degraded")
    assert [problems[name] for name in required] == ["is required and cannot answer"] * len(
        required
    )
    gateway.reconciler.models = {"a": down}
    state, problems = gateway.shown()
    assert state == "not ready"
    assert problems["gateway"] == "no model can answer"


def test_a_model_is_asked_for_by_itself() -> None:
    gateway = Gateway(
        {"a": model(r1=release(ReleaseState.REJECTED, "x")), "b": model(r1=release())}
    )
    assert gateway.shown("a") == ("not ready", {"a": "cannot answer", "a/1": "rejected: x"})
    assert gateway.shown("absent") == ("not ready", {"absent": "cannot answer"})
    gateway.reconciler.problem = "cannot list the repository"
    assert gateway.shown("b") == ("ready", {})
    assert gateway.shown()[1]["repository"] == "cannot list the repository"


def test_without_triton_or_while_draining_it_is_not_ready() -> None:
    gateway = Gateway({"a": model(r1=release())})
    gateway.triton.reachable = False
    assert gateway.shown()[0] == gateway.shown("a")[0] == "not ready"
    gateway.triton.reachable = True
    gateway.predictor.draining = True
    assert gateway.shown() == ("not ready", {"gateway": "shutting down"})


def test_changes_are_logged_once_and_losses_as_warnings() -> None:
    gateway = Gateway({"a": model(r1=release())})
    healthy = gateway.reconciler.models
    sick = {"a": model(r1=release(), r2=release(ReleaseState.REJECTED, "x"))}
    sicker = {"a": model("b", r1=release(), r2=release(ReleaseState.REJECTED, "x"))}
    gone = {"a": model(r1=release(ReleaseState.UNAVAILABLE, "x"))}
    with capture_logs() as logged:
        gateway.reconciler.started = False
        for models in (healthy, healthy):
            gateway.reconciler.models = models
            gateway.readiness._look()
        gateway.reconciler.started = True
        for models in (healthy, healthy, sick, sick, sicker, gone, gone, healthy):
            gateway.reconciler.models = models
            gateway.readiness._look()
    assert [(entry["log_level"], entry["event"]) for entry in logged] == [
        ("info", str(GatewayState.NOT_READY)),  # not yet: nothing is lost
        ("info", "ready"),
        ("warning", "degraded"),
        ("warning", "degraded"),  # one part more is dead
        ("warning", str(GatewayState.NOT_READY)),
        ("info", "ready"),
    ]
    assert logged[-2]["problems"]["gateway"] == "no model can answer"


def test_a_shutdown_is_no_warning() -> None:
    gateway = Gateway({"a": model(r1=release())})
    with capture_logs() as logged:
        gateway.readiness._look()
        gateway.predictor.draining = True
        gateway.readiness._look()
    assert [entry["log_level"] for entry in logged] == ["info", "info"]
