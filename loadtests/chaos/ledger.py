"""What came of every request: each gets exactly one truthful answer, or it counts as lost."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple

from loadtests.load.connection import Answer

_CODE = re.compile(rb'"code":"([a-z_]+)"')
_RETRY_AFTER = re.compile(rb"\r\nretry-after: *(\d+)", re.IGNORECASE)
#: Refusals that say what the matter is, by status; each but the last two says when to come back.
REFUSALS = {
    429: {"overloaded"},
    503: {"release_not_ready", "triton_unreachable", "draining"},
    502: {"inference_failed"},
    504: {"deadline_exceeded"},
}
WITH_RETRY_AFTER = (429, 503)
#: Seconds by which a clock may say that a deadline has not quite passed.
SLACK = 0.05


class Fate(StrEnum):
    """What came of one request."""

    RIGHT = "right"
    REFUSED = "refused"  # with a reason that is true
    WRONG = "wrong"  # 200 with another result, or a refusal that is not true
    LOST = "lost"  # no answer


class Sent(NamedTuple):
    """A request: when it was due (`time.perf_counter`), how long it took, and what came of it.

    `code` is the gateway's error code, `problem` says what was wrong.
    """

    model: str
    at: float
    seconds: float
    fate: Fate
    code: str = ""
    retry_after: int | None = None
    problem: str = ""


def refusal(answer: Answer, seconds: float, deadline: float) -> tuple[Fate, str, int | None, str]:
    """Judge an answer that is not 200: fate, code, Retry-After and problem of `Sent`."""
    found, later = _CODE.search(answer.body), _RETRY_AFTER.search(answer.head)
    code, retry_after = found[1].decode() if found else "", int(later[1]) if later else None
    problem = ""
    if code not in REFUSALS.get(answer.status, ()):
        problem = f"{answer.status} {answer.body[:200]!r}"
    elif answer.status in WITH_RETRY_AFTER and not retry_after:
        problem = f"{code} without Retry-After"
    elif code == "deadline_exceeded" and seconds < deadline - SLACK:
        problem = f"deadline_exceeded after {seconds:.2f} of {deadline:g} s"
    return Fate.WRONG if problem else Fate.REFUSED, code, retry_after, problem


class Account(NamedTuple):
    """A summary of requests; latencies in seconds."""

    sent: int
    fates: dict[str, int]
    codes: dict[str, int]
    p50: float
    p99: float
    refusal_p99: float
    problems: list[str]

    @property
    def balanced(self) -> bool:
        """Whether every request was answered rightly or refused truthfully."""
        return not self.fates.get(Fate.WRONG) and not self.fates.get(Fate.LOST)


def account(sent: Iterable[Sent]) -> Account:
    """Sum requests up."""
    requests = list(sent)
    right = [one.seconds for one in requests if one.fate is Fate.RIGHT]
    refused = [one.seconds for one in requests if one.fate is Fate.REFUSED and one.code != LATE]
    return Account(
        len(requests),
        dict(Counter(one.fate.value for one in requests)),
        dict(Counter(one.code for one in requests if one.code)),
        quantile(right, 0.5),
        quantile(right, 0.99),
        quantile(refused, 0.99),
        sorted({one.problem for one in requests if one.problem})[:5],
    )


LATE = "deadline_exceeded"


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of values does not exceed; 0 if there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
