"""Windows of load on a deployment, and what is written down of each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hdrh.histogram import HdrHistogram

from loadtests.bench import results, stages
from loadtests.bench.deployment import HOST, Deployment
from loadtests.bench.scenario import Beside, Scenario
from loadtests.load import window as load
from loadtests.load.corpus import start
from loadtests.load.plan import Plan, Stream, Tally, Window

#: Latencies from a microsecond to ten minutes, with three digits.
LEAST_US, MOST_US, DIGITS = 1, 600_000_000, 3
LEAST_COSINE = 0.9999


class Corpus:
    """The texts that are sent, and MiniLM's embeddings of them, by the bare model."""

    def __init__(self, texts: Path, count: int, embeddings: Path | None) -> None:
        self._texts = texts
        self._count = count
        self._embeddings = embeddings

    def stream(
        self,
        name: str,
        deployment: Deployment,
        users: int,
        rows: int,
        number: int,
        rate: float | None = None,
    ) -> Stream:
        """Return a stream of round `number`: requests start elsewhere in the corpus in each."""
        return Stream(
            name=name,
            targets=deployment.targets,
            answers=deployment.models.answers,
            users=users,
            rows=rows,
            inputs=str(self._texts),
            offset=start(number, self._count),
            expected=str(self._embeddings) if self._embeddings else None,
            least_cosine=LEAST_COSINE,
            protocol=deployment.protocol,
            rate=rate,
            seed=number,
        )


def measure(
    deployment: Deployment,
    scenario: Scenario,
    corpus: Corpus,
    number: int,
    point: str,
    rate: float | None = None,
    beside: Beside | None = None,
) -> tuple[results.Window, str]:
    """Run one window of the load generator; returns what went wrong, too. Raises WrongAnswers."""
    streams = [corpus.stream("first", deployment, scenario.users, scenario.rows, number, rate)]
    if beside:
        streams.append(corpus.stream("beside", deployment, beside.users, beside.rows, number))
    plan = Plan(
        HOST,
        deployment.port,
        scenario.warm_up,
        scenario.seconds,
        streams,
        deployment.service.groups(),
    )
    before = stages.counted(deployment)
    window = load.run(plan)
    taken = stages.means(before, stages.counted(deployment))
    whole = scenario.kind != "neighbour"
    return _written(deployment, window, number, point, taken, whole=whole), load.problems(window)


def _written(
    deployment: Deployment,
    window: Window,
    number: int,
    point: str,
    stage_ms: dict[str, float],
    *,
    whole: bool,
) -> results.Window:
    """Write down a window: the rate of `whole`, or of the first stream, whose latencies count."""
    tallies = list(window.tallies.values())
    first = window.tallies["first"]
    rss, pss = deployment.memory()
    return results.Window(
        arm=deployment.arm,
        round=number,
        point=point,
        seconds=window.seconds,
        requests=sum(tally.requests for tally in tallies),
        rows=sum(tally.rows for tally in tallies),
        errors=sum(tally.errors for tally in tallies),
        rate=_rows(tallies if whole else [first]) / window.seconds,
        latency=latency(first.latencies),
        cpu_seconds=window.cpu,
        rss_bytes=rss,
        pss_bytes=pss,
        stage_ms=stage_ms,
    )


def latency(milliseconds: Sequence[float]) -> results.Latency | None:
    """Return the percentiles; None where nothing was answered."""
    if not milliseconds:
        return None
    histogram = HdrHistogram(LEAST_US, MOST_US, DIGITS)
    for value in milliseconds:
        histogram.record_value(int(value * 1000))
    exact = load.percentiles(milliseconds)
    return results.Latency(
        p50=exact["p50"],
        p90=exact["p90"],
        p99=exact["p99"],
        p999=exact["p99.9"],
        most=max(milliseconds),
        histogram=histogram.encode().decode(),
    )


def _rows(tallies: Sequence[Tally]) -> int:
    return sum(tally.rows for tally in tallies)
