"""A deadline is one moment: what is left shrinks, and is never the zero that gRPC reads as none."""

from __future__ import annotations

import time

import pytest

from gateway.deadline import SHORTEST, Deadline


def test_what_is_left_shrinks_and_what_was_allowed_stays() -> None:
    deadline = Deadline.after(5)
    first = deadline.left
    time.sleep(0.01)
    assert 4.9 < deadline.left < first <= 5
    assert deadline.seconds == 5


@pytest.mark.parametrize("seconds", [0.0, -3.0])
def test_a_deadline_that_has_passed_still_leaves_a_timeout(seconds: float) -> None:
    assert Deadline.after(seconds).left == SHORTEST > 0
