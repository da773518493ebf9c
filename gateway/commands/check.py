"""`gateway check`: the regression gate before a deployment."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import click
import uvloop

from gateway.app import Gateway
from gateway.commands.options import options, settings
from gateway.commands.table import table
from gateway.control.release_runtime import ReleaseRuntime
from gateway.control.states import ReleaseState
from gateway.errors import public
from gateway.releases.lock import LockError
from gateway.releases.manifest import ManifestError
from gateway.telemetry import logs
from gateway.triton.layout import EmbeddedTritonError

Verdict = tuple[str, str, str, str, str]
HEADER: Verdict = ("model", "release", "preprocessor", "verdict", "reason")


@click.command()
@click.option("--seconds", default=600.0, show_default=True, help="give up after this many seconds")
@options()
def check(seconds: float, **given: Any) -> None:
    """Verify every declared release, on an embedded Triton or the one that --triton names.

    Serves no traffic. Exits with 1 and the reasons if a release cannot be verified.
    """
    config = settings(given).model_copy(update={"port": 0, "host": "127.0.0.1"})
    try:
        gateway = Gateway(config, logs.configure(config), say=lambda _: None)
        verdicts = uvloop.run(_verdicts(gateway, seconds))
    except (ManifestError, LockError, EmbeddedTritonError, OSError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(table([HEADER, *verdicts]))
    failed = sum(verdict[3] != "aligned" for verdict in verdicts)
    click.echo(f"{len(verdicts) - failed} aligned, {failed} failed")
    if failed:
        raise SystemExit(1)


async def _verdicts(gateway: Gateway, seconds: float) -> list[Verdict]:
    """Start a gateway, wait until each release is ready or rejected, and stop it."""
    deadline = time.monotonic() + seconds
    try:
        await gateway.start()
        while time.monotonic() < deadline:
            statuses = [one.status for _, _, one in _releases(gateway)]
            if all(status.state.decided for status in statuses):
                break
            await asyncio.sleep(0.1)
        return _verdicts_now(gateway)
    finally:
        await gateway.stop()


def _releases(gateway: Gateway) -> list[tuple[str, str, ReleaseRuntime]]:
    models = gateway.reconciler.models if gateway.reconciler else {}
    return [
        (model, name, runtime)
        for model, state in sorted(models.items())
        for name, runtime in sorted(state.runtimes.items())
    ]


def _verdicts_now(gateway: Gateway) -> list[Verdict]:
    models = gateway.reconciler.models if gateway.reconciler else {}
    verdicts = [
        (model, "", "", "broken", public(state.declaration.problem))
        for model, state in sorted(models.items())
        if state.declaration.problem
    ]
    for model, name, runtime in _releases(gateway):
        state, reason = runtime.status
        verdict = "aligned" if state is ReleaseState.READY else str(state)
        preprocessor = runtime.definition.release.preprocessor
        verdicts.append((model, name, preprocessor, verdict, reason))
    return verdicts
