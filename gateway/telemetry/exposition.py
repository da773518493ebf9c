"""The text of `/metrics`, of this process or of all gateways that share the port."""

from __future__ import annotations

from collections.abc import Container, Iterable

from prometheus_client import REGISTRY, CollectorRegistry, Metric, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from gateway.telemetry import multiprocess
from gateway.telemetry.metrics import STANDING

_STANDING_NAMES = frozenset(family.name for gauge in STANDING for family in gauge.describe())


def registry() -> CollectorRegistry:
    """Return the registry for `/metrics`; it covers all gateways that share the port.

    If there are several, each keeps its values in files (`multiprocess.py`).
    """
    if not multiprocess.several():
        return REGISTRY
    shared = CollectorRegistry()
    MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
    return shared


class _Present(Collector):
    """A registry without the state of releases that are gone.

    When several gateways keep their values in files, prometheus_client cannot remove labels: a
    series would stay at its last value for ever. So it is filtered out when metrics are rendered.
    """

    def __init__(self, registry: CollectorRegistry, present: Container[tuple[str, str]]) -> None:
        self._registry = registry
        self._present = present

    def collect(self) -> Iterable[Metric]:
        for family in self._registry.collect():
            if family.name in _STANDING_NAMES:
                family.samples = [
                    sample
                    for sample in family.samples
                    if (sample.labels["model"], sample.labels["release"]) in self._present
                ]
            yield family


def render(present: Container[tuple[str, str]]) -> bytes:
    """Return the text of `/metrics`; `present` holds the existing releases (model, name)."""
    return generate_latest(_Present(registry(), present))
