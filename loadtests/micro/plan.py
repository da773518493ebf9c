"""What the load generator is told to send, and what it tells of it."""

from __future__ import annotations

from typing import Literal

import msgspec


class Stamps(msgspec.Struct, frozen=True):
    """Who must have answered: they end every answer of the gateway."""

    model: str
    release: str
    model_version: int
    preprocessor: str


class Stream(msgspec.Struct, frozen=True):
    """Users who each send one request after the other, without a pause (a closed loop).

    `inputs` is a file with a JSON list of instances; a request carries `rows` consecutive ones,
    the first starts at `offset`. `expected` holds what each instance's answer is compared with:
    embeddings (.npy, instances × 384, within `least_cosine`), verdicts or scores (a JSON list).
    """

    name: str
    stamps: Stamps
    answers: Literal["embedding", "verdict", "scores"]
    users: int
    rows: int
    inputs: str
    offset: int = 0
    expected: str | None = None
    least_cosine: float = 1.0


class Plan(msgspec.Struct, frozen=True):
    """One window of load on one server; `watched` are processes whose CPU time counts."""

    host: str
    port: int
    warm_up: float
    seconds: float
    streams: list[Stream]
    watched: dict[str, list[int]]


class Tally(msgspec.Struct):
    """What came of one stream within the window; latencies in milliseconds, in order of answer."""

    requests: int
    rows: int
    latencies: list[float]
    wrong: int
    problems: list[str]
    cosines: list[float]


class Window(msgspec.Struct):
    """What one window measured: CPU seconds by group of processes, `others` not ours."""

    seconds: float
    cpu: dict[str, float]
    tallies: dict[str, Tally]
