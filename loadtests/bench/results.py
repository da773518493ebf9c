"""What a run found, as it is written to `results.json`; the report is made of nothing else.

Units are in the names: `_ms` milliseconds, `_seconds` seconds, `_bytes` bytes. A rate is
instances (texts) a second, those of batches counted one by one; only right answers count.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

#: What a folder keeps of the run before: `results.json` of the same command.
EARLIER = "earlier.json"
#: closed: `users` who each send the next request when the answer is in. open: arrivals at a fixed
#: rate, whether or not answers come; latencies count from the intended arrival. knee: open windows
#: at rates that close in on the highest that holds `slo_ms`. scaling: windows on deployments of
#: several numbers of models, closed, or open where there are `arrivals`. neighbour: singles, alone
#: and beside large batches. start: from nothing to the first right answer. rollout: a closed
#: window in which the gateway goes over to another release. soak: one long closed window, cut into
#: parts.
Kind = Literal["closed", "open", "knee", "scaling", "neighbour", "start", "rollout", "soak"]


class Latency(msgspec.Struct, frozen=True):
    """Percentiles in milliseconds; `histogram` has all of them (HdrHistogram V2, base64, in µs)."""

    p50: float
    p90: float
    p99: float
    p999: float
    most: float
    histogram: str


class Window(msgspec.Struct, frozen=True):
    """Some seconds of load on one arm, in one round.

    `point` says at what: "64" users; "120/s"; "100" models; "alone" or "beside"; a part of a soak.
    `cpu_seconds` is by group of processes, the load generator's (`generator`) and what was used by
    others on the machine (`others`) included. `rss_bytes` and `pss_bytes` are of the arm's process
    groups at the window's end: PSS shares pages that several processes have among them. `stage_ms`
    is the mean of each stage of a request, where the arm tells of stages, warming up included.
    `seconds` is the window's length; a window of kind `start` has no requests, and `seconds` is
    what the start took.
    """

    arm: str
    round: int
    point: str
    seconds: float
    requests: int = 0
    rows: int = 0
    errors: int = 0
    rate: float = 0.0
    latency: Latency | None = None
    cpu_seconds: dict[str, float] = {}
    rss_bytes: dict[str, int] = {}
    pss_bytes: dict[str, int] = {}
    stage_ms: dict[str, float] = {}


class Limit(msgspec.Struct, frozen=True):
    """What bare ONNX Runtime processes did in a window of the same round: texts/s."""

    round: int
    rows_a_batch: int
    rate: float


class Scenario(msgspec.Struct, frozen=True):
    """One scenario of the run: as declared, and every window of it in the order of time.

    `models` is `minilm` (real weights) or `generated` (random weights; points say how many).
    `rows` is instances a request; `generator` is what sent the load: `light` or `locust`.
    `arrivals` are requests a second. `apart`: each arm was measured by itself, minutes from the
    others. `notes` are facts of this run that a reader needs, for instance why an arm was left out.
    """

    name: str
    title: str
    kind: Kind
    models: str
    random_weights: bool
    rows: int
    generator: str
    windows: list[Window]
    limits: list[Limit] = []
    slo_ms: float | None = None
    notes: list[str] = []
    arrivals: float | None = None
    apart: bool = False


class Arm(msgspec.Struct, frozen=True):
    """One architecture: `name` as in windows, its title, what it is, its settings' text."""

    name: str
    title: str
    description: str
    settings: str


class Agreement(msgspec.Struct, frozen=True):
    """How an arm's answers compared with the reference's before it was measured.

    `answers` single and batch answers of `models` models were compared; `difference` is the
    largest of any number of them.
    """

    arm: str
    models: int
    answers: int
    difference: float


class Results(msgspec.Struct, frozen=True):
    """A whole run."""

    command: str
    started: str
    seconds: float
    machine: dict[str, str]
    versions: dict[str, str]
    arms: list[Arm]
    agreements: list[Agreement]
    scenarios: list[Scenario]


def write(results: Results, path: Path) -> None:
    """Write `results.json`, indented for people."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1))


def read(path: Path) -> Results:
    """Read it again. Raises msgspec.ValidationError where it is of another form."""
    return msgspec.json.decode(path.read_bytes(), type=Results)


def keep(folder: Path, command: str) -> None:
    """Keep the results of an earlier run of the same command; drop any others."""
    found, earlier = folder / "results.json", folder / EARLIER
    earlier.unlink(missing_ok=True)
    if not found.exists():
        return
    with suppress(msgspec.DecodeError):  # of another version
        if read(found).command == command:
            found.rename(earlier)
