"""One window of load by a generator of its own, and the figures of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import msgspec
import numpy as np

from loadtests.load.plan import Plan, Window
from loadtests.load.service import ROOT

GENERATOR = [sys.executable, "-m", "loadtests.load.generator"]
PERCENTILES = (50.0, 90.0, 99.0, 99.9)


class WrongAnswers(RuntimeError):
    """A server answered wrongly under load: its speed means nothing."""


def run(plan: Plan) -> Window:
    """Run one window. Raises WrongAnswers where an answer was wrong; errors are for the caller."""
    done = subprocess.run(  # noqa: S603
        GENERATOR, input=msgspec.json.encode(plan), stdout=subprocess.PIPE, cwd=ROOT, check=True
    )
    window = msgspec.json.decode(done.stdout, type=Window)
    if wrong := sum(tally.wrong for tally in window.tallies.values()):
        raise WrongAnswers(f"{wrong} wrong answers: {problems(window)}")
    return window


def problems(window: Window) -> str:
    """Return some of what went wrong, nothing where nothing did."""
    return "; ".join(text for tally in window.tallies.values() for text in tally.problems)


def percentiles(latencies: Sequence[float]) -> dict[str, float]:
    """Return the percentiles of all latencies; none where nothing was answered."""
    if not latencies:
        return {}
    values = np.percentile(latencies, PERCENTILES)
    return {f"p{at:g}": float(value) for at, value in zip(PERCENTILES, values, strict=True)}
