"""`gateway serve`: runs one gateway, or several on one port."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import click
import msgspec
import structlog
import uvloop

from gateway.app import Gateway
from gateway.commands.options import options, settings
from gateway.preprocessing.installed import PreprocessorUnavailable
from gateway.processes import Processes, StartFailed, ready_pipe
from gateway.releases.manifest import ManifestError
from gateway.serving.predict import Predictor
from gateway.serving.routing import ModelRoutes
from gateway.settings import Settings
from gateway.system import limits
from gateway.telemetry import logs
from gateway.telemetry.logs import RequestLog
from gateway.triton.layout import EmbeddedTritonError

log = structlog.get_logger(__name__)

#: Failures to start that are reported without a traceback.
START_FAILURES = (
    ManifestError,
    PreprocessorUnavailable,
    EmbeddedTritonError,
    StartFailed,
    OSError,
)
#: Garbage collector thresholds while serving: requests create few reference cycles.
COLLECT = (20_000, 20, 50)


@click.command()
@options()
def serve(**given: Any) -> None:
    """Serve the model repository. Starts an embedded Triton unless --triton is given.

    Every option can also be set as GATEWAY_<NAME> or in gateway.toml.
    """
    config = settings(given)
    try:
        uvloop.run(_serve(config, logs.configure(config)))
    except START_FAILURES as error:
        raise click.ClickException(str(error)) from None


async def _serve(config: Settings, requests: RequestLog) -> None:
    """Run until SIGINT or SIGTERM; then drain and stop.

    SIGHUP opens the log anew and looks at the declarations and rejected releases at once.
    """
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    say = _logged if config.log_stream == "stdout" else click.echo
    log.info(
        "limits",
        cores=limits.cores(),
        workers=limits.workers(config),
        most_calls=limits.most_calls(config),
    )
    pipe = ready_pipe()
    server: Gateway | Processes
    if config.processes > 1 and pipe is None:
        server = Processes(config, say)
    else:
        shares_port = pipe is not None
        # On stdout the log itself tells what people would read.
        told = _nothing if config.log_stream == "stdout" else _indented
        server = Gateway(config, requests, told, shares_port=shares_port)

    def hang_up() -> None:
        requests.stream.reopen()
        server.look_now()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hang_up)
    stop = asyncio.create_task(stopping.wait())
    start = asyncio.create_task(_start(server, config, say, pipe))
    try:
        await asyncio.wait((start, stop), return_when=asyncio.FIRST_COMPLETED)
        if start.done():
            start.result()
            await stop
    finally:
        start.cancel()
        await asyncio.gather(start, return_exceptions=True)
        say("stopping")
        await server.stop()


def _indented(text: str) -> None:
    click.echo(f"  {text}")


def _nothing(text: str) -> None:
    """Say nothing."""


def _logged(text: str) -> None:
    """Log progress, when stdout carries only the JSON log."""
    log.info("progress", text=text.strip())


async def _start(
    server: Gateway | Processes, config: Settings, say: Callable[[str], None], pipe: int | None
) -> None:
    await server.start()
    await server.ready()
    # Long-lived objects: the collector need not visit them again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT)
    if isinstance(server, Gateway):
        say(_welcome(server.predictor, address(config.host, server.port)))
    sys.stdout.flush()
    if pipe is not None:
        os.write(pipe, b"1")
        os.close(pipe)


def address(host: str, port: int) -> str:
    """Return an address that a browser can open: for a wildcard host, loopback."""
    opened = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{opened}]:{port}" if ":" in opened else f"http://{opened}:{port}"


def _welcome(predictor: Predictor, url: str) -> str:
    """Return the endpoints, and a request to try."""
    models = predictor.routing.models or {}
    lines = [f"ready at {url}"]
    for model in sorted(models):
        lines += [f"  POST /{model}_single_predict   POST /{model}_batch_predict"]
    lines += ["  GET  /models  /readyz  /livez  /metrics", "try:"]
    examples = {model: _example(routes) for model, routes in models.items() if routes.batchers}
    model = min(examples, key=lambda name: len(examples[name]))
    lines.append(
        f"  curl {url}/{model}_single_predict -H 'Content-Type: application/json'"
        f" -d '{examples[model]}'"
    )
    return "\n".join(lines)


def _example(routes: ModelRoutes) -> str:
    batcher = next(iter(routes.batchers.values()))
    return msgspec.json.encode({"input": batcher.description.examples[0]["input"]}).decode()
