"""How applied traffic follows from what is declared and from the states of the releases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from gateway.control.states import ReleaseState

Weights = Mapping[str, int]


class Applied(NamedTuple):
    """The weights that split requests.

    `started` says whether the model is done starting, `as_declared` whether these are the declared
    weights.
    """

    weights: Weights
    started: bool
    as_declared: bool = False


def apply(
    declared: Weights,
    previous: Weights,
    verified: frozenset[str],
    states: Mapping[str, ReleaseState],
    *,
    started: bool,
) -> Applied:
    """Choose a model's weights: the declared ones if all their releases are verified.

    Otherwise those of before (`previous`, which may come from before a restart), as far as their
    releases are verified; otherwise the declared ones as far as theirs are. While the model starts
    no release gets another one's share: its own release may be verified a moment later.

    `states` has all releases that run, `verified` those of them that have been verified.
    """
    wanted = {name: weight for name, weight in declared.items() if weight}
    if wanted.keys() <= verified:
        return Applied(wanted, started=True, as_declared=True)
    before = {name: weight for name, weight in previous.items() if name in states} or wanted
    decided = {name for name, state in states.items() if name in verified or state.decided}
    if not started and not before.keys() <= verified and not (before | wanted).keys() <= decided:
        return Applied(before, started=False)
    return Applied(_among(verified, before) or _among(verified, wanted) or before, started=True)


def _among(names: frozenset[str], weights: Weights) -> Weights:
    return {name: weight for name, weight in weights.items() if name in names}
