"""Admission: rows up to the bound, counted until answered, refused with an honest Retry-After."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack

import pytest
from prometheus_client import REGISTRY

from gateway.errors import Overloaded
from gateway.serving import admission
from gateway.serving.admission import LONGEST_RETRY, Admission, InFlight


def admitted(release: str) -> float | None:
    labels = {"model": "admission", "release": release}
    return REGISTRY.get_sample_value("gateway_rows_admitted", labels)


def test_rows_fit_up_to_the_limit_and_again_once_answered() -> None:
    rows = Admission("admission", "bound", 10)
    with rows.charge(6):
        with rows.charge(4):
            assert admitted("bound") == 10
            with pytest.raises(Overloaded, match=r"10 rows .* 1 more .* the limit of 10"):
                rows.charge(1).__enter__()
        with rows.charge(4):
            pass
    with rows.charge(10):
        pass
    assert admitted("bound") == 0


def test_a_request_that_fails_gives_its_rows_back() -> None:
    rows = Admission("admission", "failing", 3)
    for _ in range(5):
        with pytest.raises(ZeroDivisionError), rows.charge(3):
            raise ZeroDivisionError
    assert admitted("failing") == 0


def test_more_rows_than_the_limit_never_fit() -> None:
    with pytest.raises(Overloaded), Admission("admission", "small", 3).charge(4):
        pass


class Clock:
    """Stands for the module `time`: a rate can be brought about exactly."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("rows_per_second", "retry_after"),
    [
        (0, 1),  # nothing is known: soon
        (1000, 1),  # never less than a second
        (10, 5),  # 45 rows too many: 4.5 seconds
        (0.1, LONGEST_RETRY),
    ],
)
def test_retry_after_is_how_long_the_excess_takes(
    monkeypatch: pytest.MonkeyPatch, rows_per_second: float, retry_after: int
) -> None:
    clock = Clock()
    monkeypatch.setattr(admission, "time", clock)
    rows = Admission("admission", f"rate {rows_per_second}", 10_000)
    for _ in range(200 if rows_per_second else 0):  # the average has forgotten its start
        with rows.charge(max(1, round(rows_per_second))):
            clock.now += max(1, round(rows_per_second)) / rows_per_second
    with rows.charge(10_000), pytest.raises(Overloaded) as caught, rows.charge(45):
        pass
    assert caught.value.retry_after == retry_after


async def test_whoever_waits_for_one_owner_does_not_wait_for_others() -> None:
    requests = InFlight()
    with requests.held("other"), ExitStack() as mine:
        mine.enter_context(requests.held("mine"))
        mine.enter_context(requests.held("mine"))
        waiting = asyncio.create_task(requests.none("mine"))
        await asyncio.sleep(0)
        assert not waiting.done()
        mine.close()
        await asyncio.wait_for(waiting, 1)
        everybody = asyncio.create_task(requests.none())
        await asyncio.sleep(0)
        assert not everybody.done()
    await asyncio.wait_for(everybody, 1)
    await asyncio.wait_for(requests.none(), 1)  # at once, as nothing is in flight


async def test_a_failed_request_is_no_longer_in_flight() -> None:
    requests = InFlight()
    with pytest.raises(ZeroDivisionError), requests.held("mine"):
        raise ZeroDivisionError
    started = time.monotonic()
    await asyncio.wait_for(requests.none("mine"), 1)
    assert time.monotonic() - started < 0.5
