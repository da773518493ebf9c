"""Pauses between reloads, or between trials of a replica, double and begin anew."""

from __future__ import annotations

import pytest

from gateway.triton import pauses


def test_pauses_double_and_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(pauses.time, "monotonic", lambda: now)
    found, lengths = pauses.Pauses(10.0, 600.0, 60.0), []
    assert not found.left("m")
    for _ in range(8):
        lengths.append(found.begin("m"))
        assert found.left("m") == lengths[-1]
        assert not found.left("another")
        now += lengths[-1]
        assert not found.left("m")
    assert lengths == [10, 20, 40, 80, 160, 320, 600, 600]
    now += 601
    assert found.begin("m") == 10
    now += 10 + 59
    assert found.begin("m") == 20
