"""Routes: a pin is obeyed or refused, weights are drawn as declared, an affinity key sticks."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from gateway.errors import ReleaseNotReady, UnknownModel, UnknownRelease
from gateway.serving.routing import ModelRoutes, RoutingTable

#: Stand for batchers: what is chosen is compared, not asked.
ONE: Any = "batcher of 1"
TWO: Any = "batcher of 2"
BOTH = ModelRoutes("m", frozenset("12"), {"1": ONE, "2": TWO}, {"1": 25, "2": 75})


def test_a_pin_is_obeyed_whatever_the_weights() -> None:
    routes = BOTH._replace(weights={"2": 100})
    assert {routes.choose("1", None) for _ in range(20)} == {ONE}
    assert {routes.choose(None, None) for _ in range(20)} == {TWO}


def test_a_release_that_is_not_declared_is_told_from_one_that_cannot_answer() -> None:
    with pytest.raises(UnknownRelease, match="'m' has no release '3'"):
        BOTH.choose("3", None)
    routes = BOTH._replace(batchers={"1": ONE})
    with pytest.raises(ReleaseNotReady, match="cannot serve release '2' now"):
        routes.choose("2", None)
    assert routes.choose("1", None) is ONE


def test_a_long_pin_is_not_repeated_whole() -> None:
    with pytest.raises(UnknownRelease) as caught:
        BOTH.choose("x" * 5000, None)
    assert len(caught.value.detail) < 200


def test_without_weights_no_release_serves() -> None:
    with pytest.raises(ReleaseNotReady, match="cannot serve any release now"):
        BOTH._replace(weights={}).choose(None, None)


def test_a_share_whose_release_is_down_is_refused_not_moved() -> None:
    routes = BOTH._replace(batchers={"1": ONE}, weights={"1": 0, "2": 100})
    with pytest.raises(ReleaseNotReady, match="release '2'"):
        routes.choose(None, "any key")


@pytest.mark.parametrize("by_key", [False, True])
def test_requests_are_split_by_weight(by_key: bool) -> None:
    keys = (f"user {index}" if by_key else None for index in range(4000))
    seen = Counter(BOTH.choose(None, key) for key in keys)
    assert 0.21 < seen[ONE] / 4000 < 0.29  # five standard deviations


def test_a_weight_of_zero_draws_nothing() -> None:
    routes = BOTH._replace(weights={"1": 0, "2": 1, "3": 0})
    assert {routes.choose(None, str(key)) for key in range(200)} == {TWO}
    assert {routes.choose(None, None) for _ in range(200)} == {TWO}


def test_a_key_sticks_and_moves_only_with_the_split() -> None:
    keys = [f"user {index}" for index in range(400)]
    before = [BOTH.choose(None, key) for key in keys]
    reordered = BOTH._replace(weights={"2": 750, "1": 250})  # the same shares
    assert [reordered.choose(None, key) for key in keys] == before
    shifted = BOTH._replace(weights={"1": 35, "2": 65})
    moved = {(old, shifted.choose(None, key)) for old, key in zip(before, keys, strict=True)}
    assert moved == {(ONE, ONE), (TWO, TWO), (TWO, ONE)}  # nobody leaves the release that grows


def test_models_share_no_key() -> None:
    keys = [f"user {index}" for index in range(100)]
    other = BOTH._replace(model="n")
    assert [BOTH.choose(None, k) for k in keys] != [other.choose(None, k) for k in keys]


def test_a_table_knows_its_models_once_it_has_been_read() -> None:
    with pytest.raises(ReleaseNotReady, match="is starting"):
        RoutingTable().of("m")
    table = RoutingTable({"m": BOTH})
    assert table.of("m") is BOTH
    with pytest.raises(UnknownModel, match="No model 'x' is served"):
        table.of("x")
