"""Judges from its calls whether a model on one server is dead, or half dead.

When the process of a Python-based instance has died, Triton calls the model ready all the same, and
goes on sending that instance calls: each fails after a second, while the other instances answer
hundreds. So neither failures in a row nor their share of all calls tell. What does: a failure that
was answered when the same rows were sent again is the server's; one that was not may be the rows'.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from gateway.triton.model_control import ModelVersion

#: Seconds over which calls are counted, from a failure on.
WINDOW = 60.0
#: Seconds without a failure after which a verdict no longer holds.
QUIET = 30.0
#: Failures that a verdict needs, so that a single slip reloads nothing; fewer are enough of those
#: that were the server's for certain.
FAILURES, REFUTED = 3, 2
#: A call hangs that takes this many times as long as the slowest one so far (more for larger ones),
#: and so many seconds more; less of both if so many later calls have been answered: a server takes
#: them in turn.
SLOWER, SILENCE = 10, 30.0
OVERTAKEN, OVERTAKEN_SLOWER, OVERTAKEN_SILENCE = 20, 3, 2.0
#: Where the whole model is dead, this share of the calls fails. Where an instance is, this share of
#: the failures is refuted: fewer, and some rows fail the model, and those that share their batch.
MOST, SOME = 0.5, 0.25


class Verdict(StrEnum):
    """What the calls of a version say about it."""

    SOUND = "sound"
    FAILING = "failing"  # most calls fail
    HALF_DEAD = "half dead"  # some calls fail, and are answered when repeated
    HANGING = "hanging"  # a call has got no answer for very long, all or some instances hang


@dataclass(slots=True)
class Record:
    """The calls of one version since a failure; `refuted` failures were answered when repeated."""

    since: float
    latest: float
    calls: int = 0
    failed: int = 0
    refuted: int = 0
    verdict: Verdict = Verdict.SOUND

    def __str__(self) -> str:
        """Describe what happened, for operators."""
        if self.verdict is Verdict.HANGING:
            return "a call got no answer"
        if self.verdict is Verdict.FAILING:
            return f"{self.failed} of {self.calls} calls failed"
        return f"{self.refuted} of {self.calls} calls failed until they were repeated"

    def judge(self) -> None:
        """Set the verdict; one that was reached holds until the record ends."""
        if self.failed >= FAILURES and self.failed >= MOST * self.calls:
            self.verdict = Verdict.FAILING
        elif self.refuted >= REFUTED and self.refuted >= SOME * self.failed:
            self.verdict = Verdict.HALF_DEAD

    def over(self, now: float) -> bool:
        """Whether it says nothing about the present any more."""
        if self.verdict is Verdict.SOUND:
            return now - self.since > WINDOW
        return now - self.latest > QUIET


class Health:
    """The calls of each version on one server: `records` has those with recent failures.

    Whoever makes a call counts it in its record, if there is one; a version without failures costs
    nothing.
    """

    def __init__(self) -> None:
        self.records: dict[ModelVersion, Record] = {}
        self.answered = Counter[ModelVersion]()
        self.slowest: dict[ModelVersion, tuple[float, int]] = {}

    def failed(self, version: ModelVersion) -> None:
        """Note that the server failed a call."""
        now = time.monotonic()
        record = self.records.get(version)
        if record is None or record.over(now):
            record = self.records[version] = Record(now, now)
        record.calls += 1
        record.failed += 1
        record.latest = now
        record.judge()

    def same(self, version: ModelVersion) -> None:
        """Note that the last failure was that of a call that had failed before: one, not two."""
        if record := self.records.get(version):
            record.calls -= 1
            record.failed -= 1

    def refuted(self, version: ModelVersion) -> None:
        """Note that a call that the server failed was answered when it was repeated."""
        if record := self.records.get(version):
            record.refuted += 1
            record.judge()

    def stuck(self, version: ModelVersion, seconds: float, size: int, answered: int) -> bool:
        """Say whether a call of `size` bytes hangs after so many seconds, and note it if so.

        `answered` is how many calls had been answered when it began. What was never answered may
        be slow; else `slowest` tells what is: most seconds of a call so far, and most bytes.
        """
        if (known := self.slowest.get(version)) is None:
            return False
        longest, largest = known
        usual = longest * max(1.0, size / max(largest, 1))
        overtaken = self.answered[version] - answered >= OVERTAKEN
        if seconds < (
            OVERTAKEN_SILENCE + OVERTAKEN_SLOWER * usual if overtaken else SILENCE + SLOWER * usual
        ):
            return False
        now = time.monotonic()
        record = self.records[version] = Record(now, now, calls=1, failed=1)
        record.verdict = Verdict.HANGING
        return True

    def broken(self) -> dict[ModelVersion, Record]:
        """Return the versions that are dead or half dead, and forget what is long past."""
        now = time.monotonic()
        self.records = {v: record for v, record in self.records.items() if not record.over(now)}
        return {v: r for v, r in self.records.items() if r.verdict is not Verdict.SOUND}

    def forget(self, model: str) -> None:
        """Forget the calls of a model that is loaded anew."""
        self.records = {v: record for v, record in self.records.items() if v.model != model}
