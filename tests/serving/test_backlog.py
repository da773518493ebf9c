"""Turns: a large batch holds nobody up, and nothing starves."""

from __future__ import annotations

import random

import numpy as np
from gateway_preprocessor import Payload, Prepared

from gateway.serving.backlog import Backlog, Row
from gateway.serving.job import Job
from gateway.serving.packing import Bounds

BOUNDS = Bounds(8, 4096)
SECOND_A_ROW = 0.01


def job(rows: int) -> Job:
    return Job([Payload(b"{}")] * rows, 60, "test")


def add(backlog: Backlog, rows: int, now: float, length: int = 10) -> Job:
    added = job(rows)
    backlog.add(added, [Prepared({"ids": np.zeros(length)}, None)] * rows, [length] * rows, now)
    return added


def take(backlog: Backlog, now: float) -> list[Row]:
    return backlog.take(BOUNDS, 16, now)


async def test_a_single_does_not_wait_for_a_batch() -> None:
    backlog, now = Backlog(), 0.0
    batch = add(backlog, 300, now)
    for _ in range(10):
        now += 8 * SECOND_A_ROW
        assert {row.job for row in take(backlog, now)} == {batch}
    single = add(backlog, 1, now)
    calls = 0
    while single not in {row.job for row in take(backlog, now)}:
        now += 8 * SECOND_A_ROW
        calls += 1
    assert calls <= 2
    assert len(backlog) > 180


async def test_nothing_starves_under_a_stream_of_singles() -> None:
    backlog, now = Backlog(), 0.0
    batch = add(backlog, 40, now)
    seen = 0
    for _ in range(400):
        now += 8 * SECOND_A_ROW
        for _ in range(8):  # as many as are served
            add(backlog, 1, now)
        seen += sum(row.job is batch for row in take(backlog, now))
        if seen == 40:
            break
    assert seen == 40


async def test_rows_of_a_request_that_is_over_are_dropped() -> None:
    backlog = Backlog()
    gone, kept = add(backlog, 20, 0.0), add(backlog, 3, 0.0)
    gone.answer.cancel()
    assert {row.job for row in take(backlog, 0.1)} == {kept}
    assert not take(backlog, 0.2)
    assert len(backlog) == 0


async def test_every_row_is_handed_out_once() -> None:
    rng, backlog = random.Random(3), Backlog()
    jobs = [
        add(backlog, rng.randint(1, 40), index * 0.01, rng.randint(1, 90)) for index in range(30)
    ]
    out: list[tuple[int, int]] = []
    while rows := take(backlog, 1.0):
        assert len(rows) <= BOUNDS.rows
        out += [(id(row.job), row.position) for row in rows]
    assert sorted(out) == sorted((id(x), position) for x in jobs for position in range(x.rows))
