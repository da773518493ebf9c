"""Windows that Locust drives, for the same record: its own CPU share is part of what they tell."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from itertools import chain, repeat
from typing import Any

from loadtests.bench import results
from loadtests.bench.deployment import Deployment
from loadtests.bench.models import RELEASE
from loadtests.bench.scenario import Scenario
from loadtests.bench.windows import latency
from loadtests.load.clock import Clock
from loadtests.load.service import ROOT
from loadtests.load.window import WrongAnswers


def measure(
    deployment: Deployment, scenario: Scenario, number: int, point: str
) -> tuple[results.Window, str]:
    """Run Locust without its page for one window. Raises WrongAnswers.

    Locust writes whole milliseconds, above a hundred two digits of them. CPU time is taken from
    the end of the warm-up on and stands for as long as Locust counted.
    """
    whole = scenario.warm_up + scenario.seconds
    models = deployment.models.folder / "models.json"
    rows = ["--singles", "0", "--batches", "1", "--rows", str(scenario.rows)]
    command = [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", "--headless"]
    command += ["--host", deployment.url, "--arm", deployment.arm, "--json", "--reset-stats"]
    command += ["--users", str(scenario.users), "--spawn-rate", str(scenario.users)]
    command += ["--run-time", f"{whole:g}s", "--models-file", str(models)]
    command += rows if scenario.rows > 1 else []
    command += ["--release", RELEASE] if deployment.targets[0].stamps else []
    with subprocess.Popen(  # noqa: S603
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        time.sleep(scenario.warm_up)
        watched = deployment.service.groups() | {"generator": [process.pid]}
        clock, started = Clock(watched), time.monotonic()
        time.sleep(scenario.seconds)
        cpu, elapsed = clock.spent(), time.monotonic() - started
        printed, words = process.communicate()
    if process.returncode:
        raise WrongAnswers(f"Locust ended with {process.returncode}:\n{words[-2000:]}")
    (line,) = json.loads(printed)
    return _window(line, deployment, scenario, number, point, cpu, elapsed), ""


def _window(
    line: dict[str, Any],
    deployment: Deployment,
    scenario: Scenario,
    number: int,
    point: str,
    cpu: dict[str, float],
    elapsed: float,
) -> results.Window:
    seconds = line["last_request_timestamp"] - line["start_time"]
    times = line["response_times"].items()
    rss, pss = deployment.memory()
    rows = line["num_requests"] * scenario.rows
    return results.Window(
        arm=deployment.arm,
        round=number,
        point=point,
        seconds=seconds,
        requests=line["num_requests"],
        rows=rows,
        errors=line["num_failures"],
        rate=rows / seconds,
        latency=latency(list(chain(*(repeat(float(ms), count) for ms, count in times)))),
        cpu_seconds={name: spent * seconds / elapsed for name, spent in cpu.items()},
        rss_bytes=rss,
        pss_bytes=pss,
    )
