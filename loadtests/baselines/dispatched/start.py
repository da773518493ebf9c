"""Puts dispatcher and sub-services together."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
from tornado.netutil import bind_sockets

from loadtests.baselines.catalogue import Model
from loadtests.baselines.dispatched import dispatcher, service
from loadtests.baselines.dispatched.family import Family
from loadtests.baselines.options import Options

Count = Annotated[int, msgspec.Meta(ge=1)]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`settings.toml` of both baselines, explained there."""

    dispatchers: Count
    threads: Count
    intra_op: Count
    rows_per_call: Count


def run(options: Options, settings: Settings, runner: Callable[[Model], service.Runner]) -> None:
    """Serve until SIGTERM or SIGINT."""
    (listening,) = bind_sockets(options.port, options.host)
    with tempfile.TemporaryDirectory(prefix="dispatched-") as folder:
        paths = {name: Path(folder) / f"{i}.sock" for i, name in enumerate(options.models)}
        mains = {
            f"dispatcher {number}": functools.partial(dispatcher.serve, listening, paths)
            for number in range(settings.dispatchers)
        } | {
            name: functools.partial(
                service.serve,
                *(model, runner, paths[name]),
                threads=settings.threads,
                rows=settings.rows_per_call,
            )
            for name, model in options.models.items()
        }
        Family(mains).run()
