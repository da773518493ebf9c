"""A sub-service: one model behind Tornado, on a Unix socket."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from numpy.typing import NDArray
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_unix_socket
from tornado.web import Application, RequestHandler

from loadtests.baselines import messages
from loadtests.baselines.catalogue import Model
from loadtests.baselines.chunks import in_chunks
from loadtests.baselines.tokens import Tokens

#: int64 `input_ids` and `attention_mask` (rows, tokens) to float32 (rows, …); called by several
#: threads at once.
Runner = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[Any]]
#: Run before the service is ready: the first calls allocate, and TorchScript compiles.
WARM_UP = "A first text, before any that somebody waits for."
WARM_UPS = 4

logger = logging.getLogger(__name__)


class Predict(RequestHandler):
    """Answers predictions; the model runs in a thread, so that the loop goes on."""

    def initialize(self, predict: Callable[[messages.Form, list[str]], bytes], pool: Any) -> None:
        """Take what answers, and where it runs."""
        self._predict = predict
        self._pool = pool

    async def post(self, form: messages.Form) -> None:
        """Answer one request."""
        self.set_header("Content-Type", messages.JSON)
        try:
            texts = messages.texts(form, self.request.body)
        except messages.Refused as error:
            self.set_status(error.status)
            self.finish(messages.problem(error.reason))
            return
        loop = asyncio.get_running_loop()
        self.finish(await loop.run_in_executor(self._pool, self._predict, form, texts))


class Ready(RequestHandler):
    """It listens only once the model is loaded."""

    def get(self) -> None:
        """Say so."""
        self.finish(b"ready")


def serve(
    model: Model, runner: Callable[[Model], Runner], path: Path, threads: int, rows: int
) -> None:
    """Serve a model until SIGTERM, `rows` of a request at once in each of `threads`."""
    uvloop.run(_serve(model, runner, path, threads, rows))


async def _serve(
    model: Model, runner: Callable[[Model], Runner], path: Path, threads: int, rows: int
) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    tokens, run = Tokens(model.tokenizer), runner(model)

    def infer(texts: list[str]) -> NDArray[Any]:
        return run(*tokens(texts))

    def predict(form: messages.Form, texts: list[str]) -> bytes:
        return messages.answer(form, model.output, in_chunks(texts, rows, infer))

    for _ in range(WARM_UPS):
        predict("single", [WARM_UP])
    gc.collect()
    gc.freeze()  # what is here stays: nothing to look through again, and pages stay shared
    pool = ThreadPoolExecutor(threads)
    application = Application(
        [
            (r"/(single|batch)_predict", Predict, {"predict": predict, "pool": pool}),
            (r"/readyz", Ready),
        ],
        log_function=lambda _: None,
    )
    server = HTTPServer(application)
    server.add_socket(bind_unix_socket(str(path)))  # also where a dead one has left its own
    await ended.wait()
    server.stop()
    pool.shutdown(cancel_futures=True)
