"""`gateway check`: the regression gate before a deployment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import uvloop

from gateway.building.custody import Custody, lacking
from gateway.building.wheels import names
from gateway.commands.options import options, settings
from gateway.commands.table import table
from gateway.commands.verdicts import Verdict, alone, verdicts
from gateway.preprocessing.environments import Environments, digest
from gateway.releases import lock
from gateway.releases.lock import LockError
from gateway.releases.manifest import ManifestError
from gateway.settings import Settings
from gateway.triton.layout import EmbeddedTritonError


@click.command()
@click.option("--seconds", default=600.0, show_default=True, help="give up after this many seconds")
@options()
def check(seconds: float, **given: Any) -> None:
    """Verify every declared release, on an embedded Triton or the one that --triton names.

    Serves no traffic, and may run beside a gateway. Exits with 1 and the reasons if a release
    cannot be verified, or if a wheel that it needs could not be had on another machine.
    """
    config = settings(given)
    try:
        with alone(config) as own:
            found = uvloop.run(verdicts(own, seconds))
    except (ManifestError, LockError, EmbeddedTritonError, OSError) as error:
        raise click.ClickException(str(error)) from None
    found = _complete(config, found)
    click.echo(table([tuple(Verdict._fields), *found]))
    failed = sum(not item.aligned for item in found)
    click.echo(f"{len(found) - failed} aligned, {failed} failed")
    if failed:
        raise SystemExit(1)


def _complete(config: Settings, found: Sequence[Verdict]) -> list[Verdict]:
    """Return the verdicts, changed for releases whose locked wheels the wheelhouse lacks.

    An environment that was built here earlier would hide it. A prebuilt one needs no wheel.
    """
    environments = Environments(
        config.environments, config.wheelhouse, prebuilt=config.prebuilt_environments
    )
    prebuilt = set(environments.prebuilt())
    custody = Custody(config.repository)
    missing = custody.missing(config.wheelhouse, names(config.preprocessors))

    def judged(item: Verdict) -> Verdict:
        locked = lock.read(config.repository / item.model) if item.aligned else None
        lines = locked.releases[item.release].requirements if locked else []
        told = lacking(lines, missing, config.wheelhouse)
        if not told or digest(lines) in prebuilt:
            return item
        return item._replace(verdict="incomplete", reason=told)

    return [judged(item) for item in found]
