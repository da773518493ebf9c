"""The aims: which ratio of which windows, what it should be, and what fails a smoke run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from statistics import median
from typing import NamedTuple

from loadtests.load.limit import ROWS
from loadtests.micro.arms import Figures, Sample

#: The samples of one round by window. `LIMIT` stands for the fastest of the limit's variants.
Round = dict[str, Sample]
LIMIT = "limit"
LIMITS = tuple(f"{LIMIT}-{rows}" for rows in ROWS)


#: What one round's figures, by window, come to.
Figure = Callable[[dict[str, Figures]], float]


class Aim(NamedTuple):
    """A number that each round gives; a median beyond `aim` is a miss.

    `floor` is generous: it tells what is broken from what is slow, on any machine. `by_cpu` is
    the ratio that the CPU times would allow: it hardly depends on what else the machine does.
    """

    name: str
    workload: str
    windows: tuple[str, ...]
    figure: Figure
    aim: float
    floor: float
    at_most: bool = False
    unit: str = ""
    by_cpu: Figure | None = None

    def holds(self, value: float, bound: float) -> bool:
        """Tell whether a value keeps a bound of this aim."""
        return value <= bound if self.at_most else value >= bound


class Verdict(NamedTuple):
    """An aim, and what the rounds gave."""

    aim: Aim
    values: list[float]
    by_cpu: list[float]

    @property
    def median(self) -> float:
        """The middle one of the rounds."""
        return median(self.values)

    @property
    def met(self) -> bool:
        """Whether the aim is reached."""
        return self.aim.holds(self.median, self.aim.aim)

    @property
    def broken(self) -> bool:
        """Whether even the floor is not held."""
        return not self.aim.holds(self.median, self.aim.floor)


def _to_limit(window: str) -> Figure:
    return lambda found: found[window]["rate"] / found[LIMIT]["rate"]


def _to_limit_by_cpu(window: str) -> Figure:
    return lambda found: found[LIMIT]["cpu.all"] / found[window]["cpu.all"]


AIMS = (
    Aim(
        "singles-64",
        "MiniLM fp32 singles, 64 users: texts/s ÷ limit",
        ("minilm-64", LIMIT),
        _to_limit("minilm-64"),
        aim=0.85,
        floor=0.2,
        by_cpu=_to_limit_by_cpu("minilm-64"),
    ),
    Aim(
        "singles-16",
        "MiniLM fp32 singles, 16 users: texts/s ÷ limit",
        ("minilm-16", LIMIT),
        _to_limit("minilm-16"),
        aim=0.70,
        floor=0.2,
        by_cpu=_to_limit_by_cpu("minilm-16"),
    ),
    Aim(
        "batches",
        "MiniLM fp32, 32-text batches, 4 users: texts/s ÷ limit",
        ("minilm-batches", LIMIT),
        _to_limit("minilm-batches"),
        aim=0.90,
        floor=0.25,
        by_cpu=_to_limit_by_cpu("minilm-batches"),
    ),
    Aim(
        "one-user",
        "MiniLM fp32, one user: p50 − p50 of tokenise + bare ONNX Runtime",
        ("minilm-1", "bare-text"),
        lambda found: found["minilm-1"]["p50"] - found["bare-text"]["p50"],
        aim=1.5,
        floor=100.0,
        at_most=True,
        unit=" ms",
    ),
    Aim(
        "int8",
        "MiniLM int8 ÷ fp32, singles, 64 users",
        ("int8-64", "minilm-64"),
        lambda found: found["int8-64"]["rate"] / found["minilm-64"]["rate"],
        aim=2.0,
        floor=0.8,
        by_cpu=lambda found: found["minilm-64"]["cpu.all"] / found["int8-64"]["cpu.all"],
    ),
    Aim(
        "int8-cosine",
        "MiniLM int8, mean cosine to fp32",
        ("int8-quality",),
        lambda found: found["int8-quality"]["cosine.mean"],
        aim=0.99,
        floor=0.98,
    ),
    Aim(
        "int8-overlap",
        "MiniLM int8, top-10 retrieval overlap with fp32",
        ("int8-quality",),
        lambda found: found["int8-quality"]["overlap"],
        aim=0.95,
        floor=0.85,
    ),
    Aim(
        "tumor",
        "tumor singles, 64 users: requests/s ÷ a bare Tornado JSON handler's",
        ("tumor-64", "bare-tornado"),
        lambda found: found["tumor-64"]["rate"] / found["bare-tornado"]["rate"],
        aim=0.5,
        floor=0.05,
        by_cpu=lambda found: found["bare-tornado"]["cpu.bare"] / found["tumor-64"]["cpu.gateway"],
    ),
    Aim(
        "beside-batches",
        "MiniLM fp32 singles, 16 users, beside 300-row batches: p99 ÷ p99 alone",
        ("minilm-mixed", "minilm-16"),
        lambda found: found["minilm-mixed"]["p99"] / found["minilm-16"]["p99"],
        aim=3.0,
        floor=30.0,
        at_most=True,
    ),
)


def windows_of(names: Collection[str]) -> set[str]:
    """Return the windows that these aims are made of."""
    needed = {window for aim in AIMS if aim.name in names for window in aim.windows}
    return needed - {LIMIT} | set(LIMITS if LIMIT in needed else ())


def judge(rounds: Sequence[Round]) -> list[Verdict]:
    """Judge every aim whose windows were measured."""
    found = list(_with_limit(rounds))
    verdicts = []
    for aim in AIMS:
        measured = [item for item in found if item.keys() >= set(aim.windows)]
        if measured:
            by_cpu = [aim.by_cpu(item) for item in measured] if aim.by_cpu else []
            verdicts.append(Verdict(aim, [aim.figure(item) for item in measured], by_cpu))
    return verdicts


def best_limit(rounds: Sequence[Round]) -> str | None:
    """Return the limit's variant that ran fastest, by the median; None where none ran."""
    measured = [name for name in LIMITS if all(name in item for item in rounds)]
    return max(
        measured,
        key=lambda name: median(item[name].figures["rate"] for item in rounds),
        default=None,
    )


def _with_limit(rounds: Sequence[Round]) -> Iterator[dict[str, Figures]]:
    best = best_limit(rounds)
    for item in rounds:
        figures = {name: sample.figures for name, sample in item.items()}
        yield figures | ({LIMIT: figures[best]} if best else {})
