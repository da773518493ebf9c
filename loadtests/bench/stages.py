"""How long the stages of requests took in the gateway, as it counts them itself."""

from __future__ import annotations

from typing import NamedTuple

import httpx
from prometheus_client.parser import text_string_to_metric_families

from loadtests.bench.deployment import GATEWAYS, Deployment

#: The histogram of `/metrics`: queue is of rows, the other stages are of calls.
FAMILY = "gateway_stage_seconds"


class Count(NamedTuple):
    """How often a stage was passed so far, and the seconds that it took altogether."""

    times: float = 0
    seconds: float = 0


def counted(deployment: Deployment) -> dict[str, Count]:
    """Return the count of each stage over all models; nothing for arms that have no stages."""
    if deployment.arm not in GATEWAYS:
        return {}
    text = httpx.get(f"{deployment.url}/metrics").raise_for_status().text
    found: dict[str, Count] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples if family.name == FAMILY else ():
            count = found.get(stage := sample.labels["stage"], Count())
            if sample.name.endswith("_count"):
                found[stage] = count._replace(times=count.times + sample.value)
            elif sample.name.endswith("_sum"):
                found[stage] = count._replace(seconds=count.seconds + sample.value)
    return found


def means(before: dict[str, Count], after: dict[str, Count]) -> dict[str, float]:
    """Return the mean milliseconds of each stage that was passed between two counts."""
    found = {}
    for stage, count in after.items():
        times, seconds = (a - b for a, b in zip(count, before.get(stage, Count()), strict=True))
        if times:
            found[stage] = seconds * 1000 / times
    return found
