"""Starts it under Gunicorn: `python -m loadtests.baselines.flask_transformers --help`."""

from __future__ import annotations

import os
from typing import Annotated, Any

import msgspec
import torch
from flask import Flask
from gunicorn.app.base import BaseApplication

from loadtests.baselines import options
from loadtests.baselines.flask_transformers.app import application
from loadtests.baselines.flask_transformers.models import Models

Count = Annotated[int, msgspec.Meta(ge=1)]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`settings.toml`, explained there."""

    workers: Annotated[int, msgspec.Meta(ge=0)]
    threads: Count
    torch_threads: Count
    kept_models: Count
    rows_per_call: Count
    keep_alive_seconds: Count


class Server(BaseApplication):
    """Gunicorn with its options from here instead of from a command line."""

    def __init__(self, app: Flask, given: dict[str, Any]) -> None:
        self._app = app
        self._given = given
        super().__init__()

    def load_config(self) -> None:
        """Hand the options over."""
        for name, value in self._given.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Return the application, made before the workers are forked: they share its pages."""
        return self._app


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    given = options.parse("Gunicorn, Flask and Transformers")
    settings = given.read(Settings)
    torch.set_num_threads(settings.torch_threads)
    models = Models(given.models, settings.kept_models, settings.rows_per_call)
    gunicorn = {
        "bind": f"{given.host}:{given.port}",
        "workers": settings.workers or len(os.sched_getaffinity(0)),
        "worker_class": "gthread",
        "threads": settings.threads,
        "keepalive": settings.keep_alive_seconds,
        "preload_app": True,
        "loglevel": "warning",
    }
    Server(application(models), gunicorn).run()


if __name__ == "__main__":
    main()
