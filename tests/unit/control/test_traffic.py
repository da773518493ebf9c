"""Which weights apply: a table of cases, one rule of `control/traffic.py` a line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pytest

from gateway.control import traffic
from gateway.control.states import ReleaseState
from gateway.control.states import ReleaseState as State
from gateway.control.traffic import Applied

OLD, NEW, BOTH = {"1": 100}, {"2": 100}, {"1": 90, "2": 10}


class Case(NamedTuple):
    """What is declared and was applied before, how the releases are, and what follows."""

    name: str
    declared: Mapping[str, int]
    previous: Mapping[str, int]
    verified: str  # names of releases, one character each
    states: Mapping[str, ReleaseState]
    started: bool
    applied: Applied


def states(**given: ReleaseState) -> Mapping[str, ReleaseState]:
    return {name.removeprefix("r"): state for name, state in given.items()}


CASES = [
    # While a model starts.
    Case("nothing verified yet", OLD, {}, "", states(r1=State.LOADING), False, Applied(OLD, False)),
    Case("verified", OLD, {}, "1", states(r1=State.READY), False, Applied(OLD, True, True)),
    Case(
        "no release takes another one's share", BOTH, {}, "1",
        states(r1=State.READY, r2=State.ALIGNING), False, Applied(BOTH, False),
    ),
    Case(
        "a rejected one leaves its share to the rest", BOTH, {}, "1",
        states(r1=State.READY, r2=State.REJECTED), False, Applied({"1": 90}, True),
    ),
    Case(
        "one that Triton cannot load leaves its share, too", BOTH, {}, "1",
        states(r1=State.READY, r2=State.UNAVAILABLE), False, Applied({"1": 90}, True),
    ),
    Case(
        "all rejected", BOTH, {}, "",
        states(r1=State.REJECTED, r2=State.REJECTED), False, Applied(BOTH, True),
    ),
    Case(
        "what was applied before the restart goes on meanwhile", NEW, OLD, "1",
        states(r1=State.READY, r2=State.LOADING), False, Applied(OLD, True),
    ),
    Case(
        "what was applied before is gone", NEW, {"9": 100}, "",
        states(r2=State.LOADING), False, Applied(NEW, False),
    ),
    # A change while it serves.
    Case(
        "the new one is not verified yet", NEW, OLD, "1",
        states(r1=State.READY, r2=State.ALIGNING), True, Applied(OLD, True),
    ),
    Case(
        "the new one is verified", NEW, OLD, "12",
        states(r1=State.READY, r2=State.READY), True, Applied(NEW, True, True),
    ),
    Case(
        "the new one is rejected", NEW, OLD, "1",
        states(r1=State.READY, r2=State.REJECTED), True, Applied(OLD, True),
    ),
    Case(
        "the old one is rejected, too: what is left of the declared one", BOTH, OLD, "2",
        states(r1=State.REJECTED, r2=State.READY), True, Applied({"2": 10}, True),
    ),
    Case(
        "one of two was rejected later", BOTH, BOTH, "1",
        states(r1=State.READY, r2=State.REJECTED), True, Applied({"1": 90}, True),
    ),
    Case(
        "verified and being loaded anew counts", BOTH, BOTH, "12",
        states(r1=State.READY, r2=State.ALIGNING), True, Applied(BOTH, True, True),
    ),
    Case(
        "a release without weight is not waited for", {"1": 100, "2": 0}, OLD, "1",
        states(r1=State.READY, r2=State.LOADING), True, Applied(OLD, True, True),
    ),
    Case("none is left", OLD, OLD, "", states(r1=State.REJECTED), True, Applied(OLD, True)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_applied_traffic(case: Case) -> None:
    found = traffic.apply(
        case.declared, case.previous, frozenset(case.verified), case.states, started=case.started
    )
    assert found._replace(weights=dict(found.weights)) == case.applied
