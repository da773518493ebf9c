"""The fair queue: a large batch holds nobody up, and nothing starves."""

from __future__ import annotations

import asyncio
import random

import numpy as np
from gateway_preprocessor import Prepared

from gateway.deadline import Deadline
from gateway.serving.packing import Bounds
from gateway.serving.queue import FairQueue, PendingRequest, QueuedRow, Work

BOUNDS = Bounds(8, 4096)


def work_of(prepared: list[Prepared]) -> Work:
    rows = len(prepared)
    request = PendingRequest("test", "somebody", Deadline.after(60), rows, 0.0)
    done = asyncio.get_running_loop().create_future()
    return Work(request, "infer", prepared, [None] * rows, rows, done)


def add(queue: FairQueue, rows: int, length: int = 10) -> Work:
    return add_lengths(queue, [length] * rows)


def add_lengths(queue: FairQueue, lengths: list[int]) -> Work:
    prepared = [Prepared({"ids": np.zeros(length)}, None) for length in lengths]
    added = work_of(prepared)
    queue.add(added, prepared, lengths, 0.0)
    return added


def take(queue: FairQueue) -> list[QueuedRow]:
    return queue.take(BOUNDS, 16)


async def test_a_single_does_not_wait_for_a_batch() -> None:
    queue = FairQueue()
    batch = add(queue, 300)
    for _ in range(10):
        assert {id(row.work) for row in take(queue)} == {id(batch)}
    for _ in range(5):
        single = add(queue, 1)
        calls = 0
        while id(single) not in {id(row.work) for row in take(queue)}:
            calls += 1
        assert calls <= 1
    assert len(queue.rows) > 100


async def test_rows_that_go_early_do_not_crowd_singles_out() -> None:
    rng, queue = random.Random(5), FairQueue()
    for _ in range(12):  # users with a single at a time
        add(queue, 1, rng.randint(6, 54))
    batch = add_lengths(queue, [rng.randint(6, 54) for _ in range(300)])
    singles = early = 0
    for _ in range(30):
        for row in take(queue):
            if row.work is batch:
                early += 1
            else:
                singles += 1
                add(queue, 1, rng.randint(6, 54))
    assert singles > early > 0


async def test_who_comes_now_is_not_behind_a_batch_that_is_ready() -> None:
    queue = FairQueue()
    add(queue, 300)
    for _ in range(5):
        assert 0 < queue.due() <= BOUNDS.rows
        take(queue)
    for _ in range(20):
        add(queue, 1)
    assert queue.due() >= 20


async def test_a_small_batch_overtakes_a_large_one() -> None:
    queue = FairQueue()
    large = add(queue, 300)
    take(queue)
    small = add(queue, 16)
    left, calls = 16, 0
    while left:
        left -= sum(row.work is small for row in take(queue))
        calls += 1
    assert calls <= 8
    assert len(large.items) - len(queue.rows) < 100


async def test_nothing_starves_under_a_stream_of_singles() -> None:
    queue = FairQueue()
    batch = add(queue, 40)
    seen = 0
    for _ in range(200):
        for _ in range(8):  # as many as are served
            add(queue, 1)
        seen += sum(row.work is batch for row in take(queue))
    assert seen == 40


async def test_rows_of_a_request_that_is_over_are_dropped() -> None:
    queue = FairQueue()
    gone, kept = add(queue, 20), add(queue, 3)
    gone.done.cancel()
    assert {id(row.work) for row in take(queue)} == {id(kept)}
    assert not take(queue)
    assert len(queue.rows) == 0


async def test_every_row_is_handed_out_once() -> None:
    rng, queue = random.Random(3), FairQueue()
    jobs = [add(queue, rng.randint(1, 40), rng.randint(1, 90)) for _ in range(30)]
    out: list[tuple[int, int]] = []
    while rows := take(queue):
        assert len(rows) <= BOUNDS.rows
        out += [(id(row.work), row.position) for row in rows]
    assert sorted(out) == sorted(
        (id(x), position) for x in jobs for position in range(len(x.items))
    )
