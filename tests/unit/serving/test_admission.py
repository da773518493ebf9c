"""Admission: what can be answered in time, up to a bound, refused with an honest Retry-After."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack

import pytest
from prometheus_client import REGISTRY

from gateway.deadline import Deadline
from gateway.errors import Overloaded
from gateway.serving import admission
from gateway.serving.admission import FORGET, LONGEST_RETRY, Admission, InFlight, ServiceRate


def admitted(release: str) -> float | None:
    labels = {"model": "admission", "release": release}
    return REGISTRY.get_sample_value("gateway_rows_admitted", labels)


class Clock:
    """Stands for the module `time`: a rate can be brought about exactly."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def deadline(self, seconds: float) -> Deadline:
        return Deadline(self.now + seconds, seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(admission, "time", clock)
    return clock


def made(name: str, limit: int = 10_000) -> Admission:
    return Admission("admission", name, limit)


def busy(clock: Clock, rate: ServiceRate, rows_per_second: float) -> None:
    """Serve rows at this rate for ten seconds, all the while with more waiting."""
    rate.served(1, waiting=True)
    for _ in range(100):
        clock.now += 0.1
        rate.served(rows_per_second / 10, waiting=True)  # type: ignore[arg-type]


def test_rows_fit_up_to_the_limit_and_again_once_answered(clock: Clock) -> None:
    rows, soon = made("bound", 10), clock.deadline(1)
    with rows.charge(6, "one", soon):
        with rows.charge(4, "one", soon):
            assert admitted("bound") == 10
            with pytest.raises(Overloaded, match=r"10 rows .* 1 more .* the limit of 10"):
                rows.require_room(1, "one", soon)
        with rows.charge(4, "one", soon):
            pass
    with rows.charge(10, "one", soon):
        pass
    assert admitted("bound") == 0


def test_a_request_that_fails_gives_its_rows_back(clock: Clock) -> None:
    rows = made("failing", 3)
    for _ in range(5):
        with pytest.raises(ZeroDivisionError), rows.charge(3, "one", clock.deadline(1)):
            raise ZeroDivisionError
    assert admitted("failing") == 0


def test_more_rows_than_the_limit_never_fit(clock: Clock) -> None:
    with pytest.raises(Overloaded):
        made("small", 3).require_room(4, "one", clock.deadline(1))


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
    clock: Clock, rows_per_second: float, retry_after: int
) -> None:
    rows = made(f"rate {rows_per_second}")
    if rows_per_second:
        busy(clock, rows.rate, rows_per_second)
    with rows.charge(10_000, "one", clock.deadline(1)), pytest.raises(Overloaded) as caught:
        rows.require_room(45, "one", clock.deadline(1e6))
    assert caught.value.retry_after == retry_after


def test_what_would_come_too_late_is_refused_at_once(clock: Clock) -> None:
    rows = made("late")
    busy(clock, rows.rate, 100)
    with rows.charge(300, "one", clock.deadline(30)):
        rows.require_room(300, "one", clock.deadline(9.1))
        with pytest.raises(Overloaded, match=r"300 rows .* 300 more could take 9\.0 s"):
            rows.require_room(300, "one", clock.deadline(8.9))


def test_an_idle_release_admits_whatever_it_was_like_before(clock: Clock) -> None:
    rows = made("idle")
    busy(clock, rows.rate, 1)
    rows.require_room(300, "one", clock.deadline(0.1))


def test_a_single_does_not_wait_for_all_of_a_batch(clock: Clock) -> None:
    rows = made("fair")
    busy(clock, rows.rate, 10)
    with rows.charge(1000, "one", clock.deadline(300)):
        rows.require_room(1, "one", clock.deadline(1))


def test_only_time_with_rows_waiting_tells_the_rate(clock: Clock) -> None:
    rate = ServiceRate()
    for _ in range(100):  # a row now and then, each served at once
        rate.served(1, waiting=False)
        clock.now += 1
    assert rate.measured(clock.now) == float("inf")
    busy(clock, rate, 50)
    clock.now += FORGET / 2
    assert rate.measured(clock.now) == pytest.approx(50)
    rate.served(1, waiting=False)
    clock.now += FORGET + 1
    assert rate.measured(clock.now) == float("inf")  # long ago


def test_refused_requests_are_told_one_turn_after_another(clock: Clock) -> None:
    rows = made("turns")
    busy(clock, rows.rate, 10)
    told = []
    with rows.charge(100, "one", clock.deadline(30)):
        for _ in range(60):
            with pytest.raises(Overloaded) as caught:
                rows.require_room(5, "one", clock.deadline(0.1))
            told.append(caught.value.retry_after)
    assert told == sorted(told)
    assert told[0] == 1
    assert told[20] == pytest.approx(told[0] + 10, abs=1)  # 100 rows later, at 10 rows a second
    assert told[-1] == LONGEST_RETRY


def test_clients_share_a_queue_that_is_short_of_room(clock: Clock) -> None:
    rows = made("share", 100)
    soon = clock.deadline(10)
    busy(clock, rows.rate, 100)
    soon = clock.deadline(10)
    with ExitStack() as held:
        for _ in range(60):  # alone, it may have all
            held.enter_context(rows.charge(1, "many", soon))
        held.enter_context(rows.charge(1, "few", soon))
        with pytest.raises(Overloaded, match=r"61 rows are waiting; 60 .* this client's share"):
            rows.require_room(1, "many", soon)
        for _ in range(39):
            held.enter_context(rows.charge(1, "few", soon))
    clock.now += 60  # the other one asks no more
    with ExitStack() as held:
        for _ in range(90):
            held.enter_context(rows.charge(1, "many", clock.deadline(10)))


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
