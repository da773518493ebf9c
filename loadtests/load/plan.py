"""What the load generator is told to send, and what it tells of it."""

from __future__ import annotations

from typing import Literal

import msgspec

from loadtests.load.protocol import Protocol


class Stamps(msgspec.Struct, frozen=True):
    """Who must have answered: they end every answer of the gateway."""

    model: str
    release: str
    model_version: int
    preprocessor: str


class Target(msgspec.Struct, frozen=True):
    """A model that is asked; with `stamps`, that release of it, and nothing else may answer."""

    model: str
    stamps: Stamps | None = None


class Stream(msgspec.Struct, frozen=True):
    """Requests of one kind to one server.

    Without a `rate`, `users` each send one request after the other, without a pause (a closed
    loop). With one, so many requests arrive a second, at random moments (a Poisson process, the
    same for the same `seed`), whether or not earlier ones are answered (an open loop): `users` is
    then the most connections, and latencies count from the arrival.

    `protocol` is how a server is asked: `predict`, the gateway's endpoints; `v2`, Triton's own,
    where the text goes to the model's ensemble. `inputs` is a file with a JSON list of instances;
    a request carries `rows` consecutive ones, the first starts at `offset`. Each goes to a target
    drawn at random. `expected` holds what each instance's answer is compared with: embeddings
    (.npy, instances × 384, within `least_cosine`), verdicts or scores (a JSON list).
    """

    name: str
    targets: list[Target]
    answers: Literal["embedding", "verdict", "scores"]
    users: int
    rows: int
    inputs: str
    offset: int = 0
    expected: str | None = None
    least_cosine: float = 1.0
    protocol: Protocol = "predict"
    rate: float | None = None
    seed: int = 0


class Plan(msgspec.Struct, frozen=True):
    """One window of load on one server; `watched` are processes whose CPU time counts."""

    host: str
    port: int
    warm_up: float
    seconds: float
    streams: list[Stream]
    watched: dict[str, list[int]]


class Tally(msgspec.Struct):
    """What came of one stream within the window; latencies in milliseconds, in order of answer.

    `requests` were answered with 200, `wrong` of them not rightly; `errors` were answered with
    another status or by hanging up. `unsent` arrivals found all connections busy until the end:
    their latencies are how long they had waited by then, so at least.
    """

    requests: int = 0
    rows: int = 0
    latencies: list[float] = []
    wrong: int = 0
    errors: int = 0
    unsent: int = 0
    problems: list[str] = []
    cosines: list[float] = []


class Window(msgspec.Struct):
    """What one window measured: CPU seconds by group of processes, `others` not ours."""

    seconds: float
    cpu: dict[str, float]
    tallies: dict[str, Tally]
