"""Turns: a large batch holds nobody up, and nothing starves."""

from __future__ import annotations

import random

import numpy as np
from gateway_preprocessor import Payload, Prepared

from gateway.serving.backlog import Backlog, Row
from gateway.serving.job import Job
from gateway.serving.packing import Bounds

BOUNDS = Bounds(8, 4096)


def job(rows: int) -> Job:
    return Job([Payload(b"{}")] * rows, 60, "test")


def add(backlog: Backlog, rows: int, length: int = 10) -> Job:
    return add_lengths(backlog, [length] * rows)


def add_lengths(backlog: Backlog, lengths: list[int]) -> Job:
    added = job(len(lengths))
    prepared = [Prepared({"ids": np.zeros(length)}, None) for length in lengths]
    backlog.add(added, prepared, lengths, 0.0)
    return added


def take(backlog: Backlog) -> list[Row]:
    return backlog.take(BOUNDS, 16)


async def test_a_single_does_not_wait_for_a_batch() -> None:
    backlog = Backlog()
    batch = add(backlog, 300)
    for _ in range(10):
        assert {row.job for row in take(backlog)} == {batch}
    for _ in range(5):
        single = add(backlog, 1)
        calls = 0
        while single not in {row.job for row in take(backlog)}:
            calls += 1
        assert calls <= 1
    assert len(backlog) > 100


async def test_rows_that_go_early_do_not_crowd_singles_out() -> None:
    rng, backlog = random.Random(5), Backlog()
    for _ in range(12):  # users with a single at a time
        add(backlog, 1, rng.randint(6, 54))
    batch = add_lengths(backlog, [rng.randint(6, 54) for _ in range(300)])
    singles = early = 0
    for _ in range(30):
        for row in take(backlog):
            if row.job is batch:
                early += 1
            else:
                singles += 1
                add(backlog, 1, rng.randint(6, 54))
    assert singles > early > 0


async def test_who_comes_now_is_not_behind_a_batch_that_is_ready() -> None:
    backlog = Backlog()
    add(backlog, 300)
    for _ in range(5):
        assert 0 < backlog.due <= BOUNDS.rows
        take(backlog)
    for _ in range(20):
        add(backlog, 1)
    assert backlog.due >= 20


async def test_a_small_batch_overtakes_a_large_one() -> None:
    backlog = Backlog()
    large = add(backlog, 300)
    take(backlog)
    small = add(backlog, 16)
    left, calls = 16, 0
    while left:
        left -= sum(row.job is small for row in take(backlog))
        calls += 1
    assert calls <= 8
    assert large.rows - len(backlog) < 100


async def test_nothing_starves_under_a_stream_of_singles() -> None:
    backlog = Backlog()
    batch = add(backlog, 40)
    seen = 0
    for _ in range(200):
        for _ in range(8):  # as many as are served
            add(backlog, 1)
        seen += sum(row.job is batch for row in take(backlog))
    assert seen == 40


async def test_rows_of_a_request_that_is_over_are_dropped() -> None:
    backlog = Backlog()
    gone, kept = add(backlog, 20), add(backlog, 3)
    gone.answer.cancel()
    assert {row.job for row in take(backlog)} == {kept}
    assert not take(backlog)
    assert len(backlog) == 0


async def test_every_row_is_handed_out_once() -> None:
    rng, backlog = random.Random(3), Backlog()
    jobs = [add(backlog, rng.randint(1, 40), rng.randint(1, 90)) for _ in range(30)]
    out: list[tuple[int, int]] = []
    while rows := take(backlog):
        assert len(rows) <= BOUNDS.rows
        out += [(id(row.job), row.position) for row in rows]
    assert sorted(out) == sorted((id(x), position) for x in jobs for position in range(x.rows))
