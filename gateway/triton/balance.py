"""Spreads calls over several replicas, and passes by one that fails or is slow, for a while.

Of two replicas drawn at random the one with fewer calls in progress takes the call. That is nearly
as good as the least loaded of all, and several gateways do not all rush to the same one.

A replica is passed by for one version at a time: other models may be well there. It comes back on
trial, with one call at a time, and stays if those are answered in time. The last one is never
passed by: a bad answer is better than none. With one replica nothing here is used.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Mapping, Sequence
from enum import StrEnum
from statistics import median
from typing import Any
from weakref import WeakKeyDictionary

import structlog
from gateway_preprocessor import TensorSpec
from numpy.typing import NDArray

from gateway.deadline import Deadline
from gateway.errors import DeadlineExceeded, InferenceFailed, ReleaseNotReady, TritonUnreachable
from gateway.telemetry import metrics
from gateway.triton.health import Verdict
from gateway.triton.model_control import ModelVersion
from gateway.triton.pauses import Pauses
from gateway.triton.replica import PassedBy, Replica

log = structlog.get_logger(__name__)

#: Calls that could not be made in a row after which a replica is passed by.
FAILURES = 3
#: Times that are kept, and that a comparison needs.
TIMES, LEAST_TIMES = 50, 20
#: A replica is slow if four fifths of its calls take this many times as long as its siblings' usual
#: one, and at least this many seconds: calls of one version differ in rows, and by chance.
SLOW, SLOW_SECONDS = 5.0, 0.05
#: Seconds that it is passed by: the first time, and at most.
FIRST_PAUSE, LONGEST_PAUSE, QUIET = 5.0, 60.0, 60.0
#: Calls that a replica on trial must answer.
TRIALS = 3


class Rotation(StrEnum):
    """Whether a replica takes calls of a version."""

    IN = "in"
    OUT = "out"
    TRIAL = "on trial"  # one call at a time


class Cause(StrEnum):
    """Why a replica is passed by."""

    ERRORS = "errors"
    LATENCY = "latency"


class Standing:
    """How one load of a version fares on one replica; `seconds` are those of its last calls."""

    def __init__(self, load: int) -> None:
        self.load = load
        self.rotation = Rotation.IN
        self.seconds: deque[float] = deque(maxlen=TIMES)
        self.failures = 0
        self.passed = 0  # calls answered on trial
        self.trying = False  # a call on trial is in progress


class Balance:
    """Chooses among replicas, and calls the chosen one."""

    def __init__(self) -> None:
        # Weak: replicas come and go.
        self._standings: WeakKeyDictionary[Replica, dict[ModelVersion, Standing]] = (
            WeakKeyDictionary()
        )
        self._pauses = Pauses(FIRST_PAUSE, LONGEST_PAUSE, QUIET)

    def choose(self, able: Sequence[Replica], version: ModelVersion) -> Replica:
        """Return the replica for the next call, of two or more that are able."""
        inside = [replica for replica in able if self._admitted(replica, version)]
        candidates = inside or able
        if len(candidates) == 1:
            return candidates[0]
        one, other = random.sample(candidates, 2)
        return one if one.inference.in_flight <= other.inference.in_flight else other

    async def infer(
        self,
        replica: Replica,
        version: ModelVersion,
        tensors: Mapping[str, NDArray[Any]],
        outputs: Sequence[TensorSpec],
        deadline: Deadline,
    ) -> dict[str, NDArray[Any]]:
        """Make a call and judge the replica by it; as `Inference.infer`."""
        standing = self._standing(replica, version)
        standing.trying = standing.rotation is Rotation.TRIAL
        started = time.monotonic()
        try:
            found = await replica.inference.infer(version, tensors, outputs, deadline)
        except DeadlineExceeded:
            self._timed(replica, version, time.monotonic() - started)
            raise
        except (InferenceFailed, TritonUnreachable, ReleaseNotReady) as error:
            self._failed(replica, version, error)
            raise
        else:
            self._timed(replica, version, time.monotonic() - started)
            return found
        finally:
            standing.trying = False

    def _standing(self, replica: Replica, version: ModelVersion) -> Standing:
        """Return the standing of what the replica has loaded; a new load begins anew."""
        loaded = replica.ready.get(version)
        standings = self._standings.setdefault(replica, {})
        standing = standings.get(version)
        if standing is None or (loaded and loaded.load != standing.load):
            standing = standings[version] = Standing(loaded.load if loaded else 0)
            replica.passed_by.pop(version, None)
            for cause in Cause:  # shown as 0 until it happens
                metrics.REPLICA_EJECTIONS.labels(replica.endpoint, version.model, cause)
        return standing

    def _admitted(self, replica: Replica, version: ModelVersion) -> bool:
        standing = self._standing(replica, version)
        if standing.rotation is Rotation.OUT and not self._pauses.left((replica.endpoint, version)):
            standing.rotation, standing.passed = Rotation.TRIAL, 0
        if standing.rotation is Rotation.TRIAL:
            return not standing.trying
        return standing.rotation is Rotation.IN

    def _siblings(self, replica: Replica, version: ModelVersion) -> list[Replica]:
        """Return the other replicas that could take its calls."""
        return [
            other
            for other, standings in self._standings.items()
            if other is not replica
            and version in other.ready
            and (standing := standings.get(version))
            and standing.rotation is Rotation.IN
        ]

    def _timed(self, replica: Replica, version: ModelVersion, seconds: float) -> None:
        """Note the time of a call that was answered, or given up at its deadline."""
        standing = self._standing(replica, version)
        standing.failures = 0
        standing.seconds.append(seconds)
        trial = standing.rotation is Rotation.TRIAL
        if seconds > SLOW_SECONDS:
            mine, least = sorted(standing.seconds), 1 if trial else LEAST_TIMES
            usual = [
                median(times)
                for other in self._siblings(replica, version)
                if len(times := self._standing(other, version).seconds) >= LEAST_TIMES
            ]
            took = mine[len(mine) // 5]
            if usual and len(mine) >= least and took > max(SLOW * median(usual), SLOW_SECONDS):
                told = f"calls take {took:.3f} s, those of its siblings {median(usual):.3f} s"
                self._pass_by(replica, version, Cause.LATENCY, told)
                return
        if trial:
            standing.passed += 1
            if standing.passed == TRIALS:
                standing.rotation = Rotation.IN
                replica.passed_by.pop(version, None)
                log.info("replica takes calls again", **_names(replica, version))

    def _failed(self, replica: Replica, version: ModelVersion, error: Exception) -> None:
        """Note a call that failed: of a dead instance, or that could not be made."""
        standing = self._standing(replica, version)
        if isinstance(error, InferenceFailed):
            record = replica.inference.health.records.get(version)
            bad = record is not None and record.verdict is not Verdict.SOUND
        else:
            standing.failures += 1
            bad = standing.failures >= FAILURES
        if bad or standing.rotation is Rotation.TRIAL:
            self._pass_by(replica, version, Cause.ERRORS, f"calls fail: {error}")

    def _pass_by(self, replica: Replica, version: ModelVersion, cause: Cause, told: str) -> None:
        standing = self._standing(replica, version)
        if standing.rotation is Rotation.OUT or not self._siblings(replica, version):
            return
        standing.rotation = Rotation.OUT
        standing.failures = 0
        standing.seconds.clear()
        pause = self._pauses.begin((replica.endpoint, version))
        reason = f"gets no calls for {pause:.0f} s: {told}"
        replica.passed_by[version] = PassedBy(time.monotonic() + pause, reason)
        metrics.REPLICA_EJECTIONS.labels(replica.endpoint, version.model, cause).inc()
        log.warning("replica passed by", seconds=pause, reason=told, **_names(replica, version))


def _names(replica: Replica, version: ModelVersion) -> dict[str, Any]:
    return {"replica": replica.endpoint, "model": version.model, "version": version.number}
