"""Asks running gateways how a model stands, and waits until a change is in force in them."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import NamedTuple, TypeVar
from urllib.parse import quote

import msgspec

from gateway.control.effect import split
from gateway.control.states import EffectState, ReleaseState, ReleaseStatus
from gateway.releases.history import shared
from gateway.releases.manifest import Manifest, Shadow

#: Seconds for one answer, and between two questions.
ANSWER_SECONDS, PAUSE = 10.0, 0.1
T = TypeVar("T")


class Unanswered(RuntimeError):
    """No gateway answers at an address, or something else does; the message says which."""


class Release(msgspec.Struct):
    """A release as a gateway tells of it."""

    state: ReleaseState
    reason: str = ""

    def __str__(self) -> str:
        return str(ReleaseStatus(self.state, self.reason))


LOADING = Release(ReleaseState.LOADING)


class Told(msgspec.Struct):
    """What a gateway tells of a declaration's effect."""

    state: EffectState
    reasons: list[str]
    remarks: list[str]


class Model(msgspec.Struct):
    """A model as a gateway tells of it; `traffic` is what is applied."""

    model: str
    traffic: dict[str, int]
    declared_traffic: dict[str, int]
    shadow: Shadow | None
    releases: dict[str, Release]
    unloaded: list[str]
    effect: Told

    def follows(self, declared: Manifest) -> bool:
        """Whether the gateway has read this declaration."""
        return (
            shared(self.declared_traffic) == shared(declared.traffic)
            and self.shadow == declared.shadow
            and set(self.unloaded) == declared.releases.keys() - declared.loaded.keys()
        )


class One(Model, kw_only=True):
    """The answer of `/models/{model}`: also which gateway answers, of how many on its port."""

    gateway: str
    processes: int


class All(msgspec.Struct):
    """The answer of `/models`."""

    models: list[Model]


class Outcome(NamedTuple):
    """How a change stands in the gateways that answered: the state, and a sentence for people."""

    state: EffectState
    sentence: str
    remarks: Sequence[str] = ()


def models(url: str) -> dict[str, Model]:
    """Ask a gateway for all models, by name. Raises Unanswered."""
    return {model.model: model for model in _ask(f"{url.rstrip('/')}/models", All).models}


class Change(NamedTuple):
    """A change that gateways should follow: the new declaration, and a release that it loads."""

    model: str
    declared: Manifest
    loads: str | None = None

    def reasons(self, one: One, url: str) -> list[str]:
        """Return why a gateway that has read the change does not follow it; none if it does."""
        reasons = list(one.effect.reasons)
        if self.loads and (told := self._loaded(one)).state is not ReleaseState.READY:
            reasons.append(f"release {self.loads} is {told}")
        if reasons:
            reasons.insert(0, f"{split(one.traffic)} is in force at {url}")
        return reasons

    def refused(self, one: One) -> bool:
        """Whether a gateway that has read the change will not follow it by itself."""
        rejected = self._loaded(one).state is ReleaseState.REJECTED
        return rejected or one.effect.state is EffectState.REFUSED

    def _loaded(self, one: One) -> Release:
        """Return the release that the change loads, as a gateway tells of it."""
        return one.releases.get(self.loads or "", LOADING)


def wait(change: Change, urls: Sequence[str], seconds: float, gateways: int = 1) -> Outcome:
    """Wait until every gateway at these addresses follows a change, or one refuses to.

    `gateways` answer at each address, beside those that share a port, of which the answers tell.
    Raises Unanswered if one address does not answer.
    """
    deadline = time.monotonic() + seconds
    found: dict[str, dict[str, One]] = {url: {} for url in urls}
    while True:
        for url, seen in found.items():
            one = _ask(f"{url.rstrip('/')}/models/{quote(change.model)}", One)
            seen[one.gateway] = one
        outcome = _outcome(change, found, gateways)
        if outcome.state is not EffectState.PENDING or time.monotonic() >= deadline:
            return outcome
        time.sleep(PAUSE)


def _outcome(change: Change, found: dict[str, dict[str, One]], gateways: int) -> Outcome:
    """Judge the latest answers of every gateway that has answered."""
    wanted, done, refused = 0, 0, False
    reasons: list[str] = []
    unread: list[str] = []
    remarks: list[str] = []
    for url, seen in found.items():
        wanted += max([gateways, *(one.processes for one in seen.values())])
        for one in seen.values():
            if not one.follows(change.declared):
                unread.append(f"{url} has not read the change: does it serve this repository?")
                continue
            remarks += one.effect.remarks
            why = change.reasons(one, url)
            done += not why
            refused |= bool(why) and change.refused(one)
            reasons += why
    if done >= wanted:
        every = f"in force in all {done} gateways" if done > 1 else "in force"
        return Outcome(EffectState.IN_FORCE, every, list(dict.fromkeys(remarks)))
    if not refused:
        reasons += unread  # a gateway may just not have looked yet
    told = "; ".join([f"in force in {done} of {wanted} gateways", *dict.fromkeys(reasons)])
    return Outcome(EffectState.REFUSED if refused else EffectState.PENDING, told)


def _ask(url: str, kind: type[T]) -> T:
    """Read one answer, over a new connection: gateways that share a port take turns."""
    if not url.startswith(("http://", "https://")):
        raise Unanswered(f"{url!r} is not an http:// or https:// address")
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_SECONDS) as answer:  # noqa: S310
            return msgspec.json.decode(answer.read(), type=kind)
    except urllib.error.HTTPError as error:
        error.close()
        raise Unanswered(f"{url} answers {error.code} {error.reason}") from None
    except OSError as error:
        raise Unanswered(f"{url} does not answer: {getattr(error, 'reason', error)}") from None
    except (msgspec.DecodeError, ValueError):
        raise Unanswered(f"{url} does not answer like a gateway") from None
