"""How applied traffic follows from the declared traffic and the states of the releases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from gateway.control.states import ReleaseState

Weights = Mapping[str, int]


class Applied(NamedTuple):
    """The weights that split requests.

    `started` says whether the model has started, `as_declared` whether these are the declared
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

    Otherwise the previous ones (possibly saved before a restart), restricted to verified releases;
    otherwise the declared ones, restricted likewise. While the model starts, no release takes over
    another one's share, since that one may be verified a moment later.

    `states` has all running releases; `verified` names those that have been verified.
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
