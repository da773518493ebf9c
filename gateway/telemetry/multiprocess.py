"""Metrics of several gateways on one port, in files that prometheus_client maps into memory.

Each gateway has files of its own, named by its place among them: one that is started again goes on
with them. Their space is reserved before it starts, since writing to a mapped file on a full disk
ends a process (SIGBUS).
"""

from __future__ import annotations

import os
from pathlib import Path

from prometheus_client import values
from prometheus_client.multiprocess import mark_process_dead

#: Makes prometheus_client collect the values of several processes in one folder.
FOLDER = "PROMETHEUS_MULTIPROC_DIR"
#: The place of this process among the gateways. Not a setting.
PLACE = "_GATEWAY_PLACE"
#: Bytes of each kind of file: some hundred models' series, at up to 200 bytes each.
SIZES = {
    "histogram": 8 << 20,
    "counter": 1 << 20,
    "gauge_livesum": 1 << 20,
    "gauge_livemin": 1 << 20,
    "gauge_livemax": 1 << 20,
    "gauge_livemostrecent": 1 << 20,
}


def reserve(folder: Path, place: int) -> dict[str, str]:
    """Reserve the space of a gateway's files; returns the variables that it needs to find them.

    Raises OSError if the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for kind, size in SIZES.items():
        with (folder / f"{kind}_{place}.db").open("ab") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    return {FOLDER: str(folder), PLACE: str(place)}


def forget(folder: Path, place: int) -> None:
    """Forget the present values of a gateway that has ended; its counters stay."""
    mark_process_dead(place, str(folder))  # type: ignore[no-untyped-call]


def several() -> bool:
    """Whether several gateways share the metrics."""
    return FOLDER in os.environ


def adopt() -> None:
    """Use the files of this process's place, if it has one; call it before there is any metric."""
    if place := os.environ.get(PLACE):
        values.ValueClass = values.MultiProcessValue(lambda: place)  # type: ignore[no-untyped-call]
