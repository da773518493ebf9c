"""Announcements: each change in one line, once; a rejection again only for another reason."""

from __future__ import annotations

from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from gateway.control.announcer import Announcer
from gateway.control.declarations import Declaration
from gateway.control.definition import Definition
from gateway.control.model_state import ModelState
from gateway.control.release_runtime import ReleaseRuntime
from gateway.control.states import ReleaseState, ReleaseStatus
from gateway.releases.manifest import Manifest, Release, Shadow

RELEASE = Release(model_version=1, preprocessor="a-preprocessor==1.0.0")
ALIGNING = ReleaseStatus(ReleaseState.ALIGNING)
READY = ReleaseStatus(ReleaseState.READY)


class Runtime:
    """What the announcer looks at."""

    def __init__(self, name: str, status: ReleaseStatus) -> None:
        self.definition = Definition("m", name, RELEASE, None)
        self.status = status

    @property
    def answering(self) -> bool:
        return self.status == READY

    @property
    def rejected(self) -> bool:
        return self.status.state is ReleaseState.REJECTED


def rejected(reason: str) -> ReleaseStatus:
    return ReleaseStatus(ReleaseState.REJECTED, reason)


class Room:
    """One model, `m`, and what was said of it."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self._announcer = Announcer(self.said.append)
        self.runtimes = {name: Runtime(name, ALIGNING) for name in "12"}
        self.newer: dict[str, Runtime] = {}
        self.declared, self.applied = {"1": 100}, {"1": 100}
        self.shadow: Shadow | None = None

    def look(self) -> list[str]:
        """Return what is said now."""
        releases = dict.fromkeys(self.runtimes, RELEASE)
        state = ModelState(
            Declaration(Manifest(releases, self.declared, self.shadow)),
            cast("dict[str, ReleaseRuntime]", self.runtimes),
            self.applied,
            cast("dict[str, ReleaseRuntime]", self.newer),
            started=True,
        )
        before = len(self.said)
        self._announcer.look({"m": state})
        return self.said[before:]

    def loading(self, name: str) -> None:
        self._announcer.loading("m", name, RELEASE.preprocessor)


@pytest.fixture
def room() -> Room:
    return Room()


def test_loading_is_told_once_until_its_end_is(room: Room) -> None:
    room.loading("1")
    room.loading("1")
    assert room.said == ["loading m, release 1: a-preprocessor==1.0.0"]
    assert room.look() == []
    room.runtimes["1"].status = READY
    assert room.look() == ["ready: m, release 1"]
    assert room.look() == []
    room.loading("1")
    assert len(room.said) == 3


def test_a_rejection_is_told_again_only_for_another_reason(room: Room) -> None:
    with capture_logs() as logs:
        for reason in ("a", "a", "b", "b", "a"):
            room.runtimes["1"].status = rejected(reason)
            room.look()
            room.runtimes["1"].status = ALIGNING  # it is tried again
            room.look()
    told = [f"rejected: m, release 1: {reason}" for reason in "aba"]
    assert [line for line in room.said if line.startswith("rejected")] == told
    events = [entry for entry in logs if entry["event"] == "release rejected"]
    assert [entry["reason"] for entry in events] == ["a", "b", "a"]
    assert {entry["log_level"] for entry in events} == {"error"}


def test_traffic_is_told_when_it_changes(room: Room) -> None:
    room.runtimes["1"].status = room.runtimes["2"].status = READY
    assert room.look() == ["ready: m, release 1", "ready: m, release 2"]  # nothing of traffic
    room.declared = {"1": 0, "2": 100}
    assert room.look() == []  # on its way
    room.applied = {"2": 100}
    assert room.look() == ["traffic: m: 2=100"]
    assert room.look() == []


def test_traffic_that_is_refused_is_told_with_the_reason(room: Room) -> None:
    room.runtimes["1"].status = READY
    room.declared = {"1": 50, "2": 50}
    assert room.look() == ["ready: m, release 1"]
    room.runtimes["2"].status = rejected("a golden case differs")
    assert room.look() == [
        "rejected: m, release 2: a golden case differs",
        (
            "traffic: m: 1=100 stays in force although 1=50 2=50 is declared;"
            " release 2 is rejected: a golden case differs"
        ),
    ]
    assert room.look() == []


def test_a_newer_definition_that_is_rejected_is_told(room: Room) -> None:
    room.runtimes["1"].status = READY
    room.newer["1"] = Runtime("1", ALIGNING)
    assert room.look() == ["ready: m, release 1"]
    room.newer["1"].status = rejected("config.pbtxt changed")
    told = "rejected: m, release 1: config.pbtxt changed; it serves as it was declared before"
    assert room.look() == [told]
    assert room.look() == []


def test_a_shadow_of_itself_is_told(room: Room) -> None:
    room.runtimes["1"].status = READY
    room.look()
    room.shadow = Shadow("1")
    remark = "the shadow compares release 1 with itself: it has all the traffic"
    assert room.look() == [f"traffic: m: 1=100; {remark}"]
    room.shadow = None
    assert room.look() == ["traffic: m: 1=100"]


def test_what_goes_is_told(room: Room) -> None:
    room.runtimes["1"].status = room.runtimes["2"].status = READY
    room.look()
    del room.runtimes["2"]
    assert room.look() == ["removed: m, release 2"]
    before = len(room.said)
    room._announcer.look({})
    assert room.said[before:] == ["removed: m, release 1"]


def test_a_broken_model_and_its_end(room: Room) -> None:
    announcer: Any = room._announcer
    announcer.broken("m", "/srv/models/m/releases.toml:3: no such release")
    announcer.broken("m", "")
    assert room.said == [
        "broken: m: releases.toml:3: no such release",
        "mended: m: its files can be read again",
    ]
