"""The scenarios, as `loadtests/scenarios/*.toml` declares them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from loadtests.bench.results import Kind

FOLDER = Path(__file__).parents[1] / "scenarios"
MINILM: Final = "minilm"
#: The sets of scenarios that one command runs.
Set = Literal["full", "quick"]


class Beside(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A second stream on the same server: closed-loop users, and instances a request."""

    users: int
    rows: int


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One scenario. What each `kind` means stands in `results.Kind`.

    `models` is `minilm`, or the sizes of generated deployments that are compared; scenarios in a
    row of the same sizes share them. `apart`: they are too large to be up all at once, and arms
    are measured one after the other. With `arrivals`, so many requests a second come at random
    moments instead of `users` who wait for their answers. `rates` are
    fractions of the limit, which is measured first: those of an open scenario are all measured, a
    knee is looked for between the last that holds `slo_ms` (p99) and the first that does not, in
    `halvings` more windows. `sets` are those it belongs to; `quick` says what is other in the
    quick one. Times in seconds.
    """

    title: str
    kind: Kind
    arms: list[str]
    sets: list[Set]
    models: Literal["minilm"] | list[int] = "minilm"
    users: int = 64
    rows: int = 1
    rounds: int = 3
    seconds: float = 5.0
    warm_up: float = 1.0
    generator: Literal["light", "locust"] = "light"
    beside: Beside | None = None
    rates: list[float] = []
    slo_ms: float | None = None
    halvings: int = 1
    parts: int = 1
    arrivals: float | None = None
    apart: bool = False
    name: str = ""


def read(name: str, chosen: Set | None = None) -> Scenario:
    """Read one by its name. Raises FileNotFoundError, msgspec.ValidationError."""
    declared: dict[str, Any] = msgspec.toml.decode((FOLDER / f"{name}.toml").read_bytes())
    quick = declared.pop("quick", {})
    return msgspec.convert(
        declared | (quick if chosen == "quick" else {}) | {"name": name}, type=Scenario
    )


def names() -> list[str]:
    """Return all names, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def those_of(chosen: Set) -> list[Scenario]:
    """Return a set's scenarios, in the order of their names."""
    found = (read(name, chosen) for name in names())
    return [scenario for scenario in found if chosen in scenario.sets]


def only(declared: Scenario, arms: Sequence[str]) -> Scenario:
    """Return a scenario with those of its arms that are wanted."""
    return msgspec.structs.replace(declared, arms=[arm for arm in declared.arms if arm in arms])
