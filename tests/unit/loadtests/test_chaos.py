"""The judge of `make chaos`: what counts as a truthful answer, and as recovered."""

from __future__ import annotations

import pytest

from loadtests.chaos.faults import FAULTS
from loadtests.chaos.ledger import Fate, Sent, account, refusal
from loadtests.chaos.soak import Sample, trend
from loadtests.chaos.target import Look
from loadtests.chaos.trial import MENDS, judged
from loadtests.load.connection import Answer


def answer(status: int, code: str, head: bytes = b"") -> Answer:
    return Answer(status, f'{{"status":{status},"code":"{code}"}}'.encode(), 0, head)


@pytest.mark.parametrize(
    ("given", "seconds", "fate"),
    [
        (answer(429, "overloaded", b"\r\nRetry-After: 3\r\n"), 0.01, Fate.REFUSED),
        (answer(429, "overloaded"), 0.01, Fate.WRONG),  # when?
        (answer(429, "overloaded", b"\r\nRetry-After: 0\r\n"), 0.01, Fate.WRONG),
        (answer(503, "triton_unreachable", b"\r\nretry-after: 2\r\n"), 0.01, Fate.REFUSED),
        (answer(504, "deadline_exceeded"), 5.0, Fate.REFUSED),
        (answer(504, "deadline_exceeded"), 2.0, Fate.WRONG),  # it has not passed
        (answer(500, "internal"), 0.01, Fate.WRONG),
        (answer(503, "overloaded", b"\r\nRetry-After: 3\r\n"), 0.01, Fate.WRONG),
        (Answer(502, b"<html>", 0), 0.01, Fate.WRONG),
    ],
)
def test_only_true_refusals_count(given: Answer, seconds: float, fate: Fate) -> None:
    found = refusal(given, seconds, deadline=5.0)
    assert found[0] is fate
    assert bool(found[3]) is (fate is Fate.WRONG)


def test_an_account_is_balanced_only_without_wrong_and_lost() -> None:
    right, refused = (
        Sent("m", 0, 0.1, Fate.RIGHT),
        Sent("m", 0, 0.2, Fate.REFUSED, "overloaded", 1),
    )
    good = account([right] * 3 + [refused])
    assert (good.sent, good.fates, good.codes) == (4, {"right": 3, "refused": 1}, {"overloaded": 1})
    assert good.balanced
    assert not account([right, Sent("m", 0, 0.1, Fate.LOST)]).balanced
    assert not account([right, Sent("m", 0, 0.1, Fate.WRONG)]).balanced


def look(at: float, *, well: bool) -> Look:
    return Look(at, 200, "ready" if well else "degraded", {} if well else {"m/1": "dead"})


def test_a_trial_fails_unless_all_is_as_before() -> None:
    fault = FAULTS["worker-killed"]
    looks = [look(at, well=not 10 < at < 13) for at in range(30)]
    calm = [Sent("m", at, 0.1, Fate.RIGHT) for at in range(30)]
    trial = judged(fault, calm, looks, 10.0, 12.0)
    assert trial.failures == []
    assert (trial.named, trial.mended, trial.told) == (1.0, 1.0, ["m/1"])
    late = judged(fault, calm, [look(at, well=at <= 10) for at in range(30)], 10.0, 12.0)
    assert late.failures == ["not well in time"]
    still = [*calm, Sent("m", 12 + MENDS + 1, 0.1, Fate.REFUSED, "release_not_ready", 1)]
    assert "still failing" in judged(fault, still, looks, 10.0, 12.0).failures[0]
    slow = [*calm, Sent("m", 11.5, 1.5, Fate.REFUSED, "release_not_ready", 1)]
    assert "a refusal took 1.5 s" in judged(fault, slow, looks, 10.0, 12.0).failures[0]
    lost = [*calm, Sent("m", 11.0, 0.1, Fate.LOST, problem="the server hung up")]
    assert "1 requests lost" in judged(fault, lost, looks, 10.0, 12.0).failures[0]
    assert judged(FAULTS["gateway-killed"], lost, looks, 10.0, 12.0).failures == []


def test_a_soak_tells_growth_from_noise() -> None:
    mebi = 1 << 20
    steady = [Sample(at, (500 + at % 3) * mebi, 100, 20, 4) for at in range(100)]
    assert not trend("workers", steady).grows
    leaking = [Sample(at, (500 + at) * mebi, 100, 20, 4) for at in range(100)]
    assert trend("workers", leaking).growth == pytest.approx(99 * mebi)
    assert trend("workers", leaking).grows
    descriptors = [Sample(at, 500 * mebi, 100 + at // 10, 20, 4) for at in range(100)]
    assert trend("workers", descriptors).grows
