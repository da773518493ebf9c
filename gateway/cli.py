"""The command line: `gateway serve`."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any

import click
import msgspec
import uvloop
from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from gateway.app import Gateway
from gateway.preprocessing.installed import PreprocessorUnavailable
from gateway.releases.manifest import ManifestError
from gateway.serving.pipeline import Pipeline
from gateway.settings import Settings
from gateway.telemetry import logs
from gateway.triton.embedded import EmbeddedTritonError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(metadata.version("triton-release-gateway"))
def main() -> None:
    """A gateway in front of NVIDIA Triton: versioned preprocessing, batching, releases."""


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option per setting, so that the two never part."""
    for name, field in reversed(Settings.model_fields.items()):
        default = "" if field.default in (None, (), PydanticUndefined) else f" [{field.default}]"
        flag, text = f"--{name.replace('_', '-')}", f"{field.description}{default}"
        command = click.option(flag, name, default=None, help=text)(command)
    return command


@main.command()
@_options
def serve(**options: Any) -> None:
    """Serve the model repository; starts an embedded Triton unless --triton names one.

    Every option can also be set as GATEWAY_<NAME> or in gateway.toml.
    """
    given = {name: value for name, value in options.items() if value is not None}
    try:
        settings = Settings(**given)
        logs.configure(settings)
        uvloop.run(_serve(settings))
    except ValidationError as error:
        raise click.ClickException(_readable(error)) from None
    except (ManifestError, PreprocessorUnavailable, EmbeddedTritonError, OSError) as error:
        raise click.ClickException(str(error)) from None


async def _serve(settings: Settings) -> None:
    """Run until SIGINT or SIGTERM; then drain and stop."""
    gateway = Gateway(settings, say=lambda text: click.echo(f"  {text}"))
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    stop = asyncio.create_task(stopping.wait())
    start = asyncio.create_task(_start(gateway, settings))
    try:
        await asyncio.wait((start, stop), return_when=asyncio.FIRST_COMPLETED)
        if start.done():
            start.result()
            await stop
    finally:
        start.cancel()
        await asyncio.gather(start, return_exceptions=True)
        click.echo("stopping")
        await gateway.stop()


async def _start(gateway: Gateway, settings: Settings) -> None:
    await gateway.start()
    await gateway.ready()
    click.echo(_welcome(gateway.pipeline, f"http://{settings.host}:{gateway.port}"))
    sys.stdout.flush()


def _welcome(pipeline: Pipeline, url: str) -> str:
    """Name the endpoints, and one request to paste."""
    lines = [f"ready at {url}"]
    for model in sorted(pipeline.traffic):
        lines += [f"  POST /{model}_single_predict   POST /{model}_batch_predict"]
    lines += ["  GET  /models  /readyz  /livez  /metrics", "try:"]
    model, traffic = min(pipeline.traffic.items(), key=lambda item: len(_example(item[1])))
    lines.append(
        f"  curl {url}/{model}_single_predict -H 'Content-Type: application/json'"
        f" -d '{_example(traffic)}'"
    )
    return "\n".join(lines)


def _example(traffic: Any) -> str:
    lane = next(iter(traffic.lanes.values()))
    example = {name: lane.description.examples[0][name] for name in ("input",)}
    return msgspec.json.encode(example).decode()


def _readable(error: ValidationError) -> str:
    lines = ["these settings are wrong:"]
    for item in error.errors():
        name = ".".join(str(part) for part in item["loc"])
        lines.append(f"  {name or 'settings'}: {item['msg']}")
    return "\n".join(lines)
