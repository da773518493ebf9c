"""`gateway release`: show and change how a model's traffic is split over its releases.

Edits `releases.toml`; every gateway that serves the repository follows within a second, and is
waited for.
"""

from __future__ import annotations

import getpass
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from gateway.commands import gateways
from gateway.commands.gateways import Change, Model, Unanswered
from gateway.commands.options import options, settings
from gateway.commands.release_rows import rows
from gateway.commands.table import table
from gateway.control.states import EffectState
from gateway.releases import manifest, rollout
from gateway.releases.manifest import Compare, Manifest, ManifestError, Shadow
from gateway.releases.rollout import RolloutError
from gateway.settings import Settings

NONE = "none"
#: Exit codes of a change that is declared, but not in force, or of which no gateway tells.
NOT_IN_FORCE, NO_GATEWAY = 3, 4
_WHOLE = re.compile(r"-?[0-9]{1,18}")


@click.group()
def release() -> None:
    """Show and change how a model's traffic is split over its releases.

    A change edits releases.toml and waits until the gateway at --url follows it. Exit codes: 0, in
    force (or declared, with --no-wait); 1, refused, nothing has changed; 3, declared, but not in
    force, with the reason; 4, declared, but no gateway answers.
    """


def _changes(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a command that changes something."""
    for option in (
        options("repository"),
        click.option(
            "--gateways",
            "count",
            type=click.IntRange(1),
            default=1,
            help="gateways behind each --url, if it is a load balancer's  [1]",
        ),
        click.option("--no-wait", is_flag=True, help="only declare the change"),
        click.option(
            "--wait",
            "seconds",
            metavar="SECONDS",
            type=click.FloatRange(0),
            default=60.0,
            help="how long to wait for it to be in force  [60]",
        ),
        click.option(
            "--url",
            "urls",
            multiple=True,
            envvar="GATEWAY_URL",
            help="a gateway that has to follow; repeatable  [http://127.0.0.1 and the port]",
        ),
    ):
        command = option(command)
    return command


@release.command("list")
@click.argument("model", required=False)
@click.option(
    "--url",
    envvar="GATEWAY_URL",
    help="the gateway to ask  [http://127.0.0.1 and the port, if it answers]",
)
@options("repository")
def show(model: str | None, url: str | None, **given: Any) -> None:
    """List the releases of MODEL, or of all models, as declared and as a gateway applies them."""
    config = settings(given)
    try:
        manifests = manifest.read(config.repository, (model,) if model else ())
    except ManifestError as error:
        raise click.ClickException(str(error)) from None
    served: dict[str, Model] | None = None
    notes = []
    try:
        served = gateways.models(url or _local(config))
    except Unanswered as error:
        if url:
            raise click.ClickException(str(error)) from None
        notes = [f"what is applied is not known: {error}"]
    for name in manifests:
        if told := served.get(name) if served else None:
            notes += [f"{name}: {text}" for text in (*told.effect.reasons, *told.effect.remarks)]
    click.echo(table(list(rows(config.repository, manifests, served))))
    for note in notes:
        click.echo(note, err=True)


@release.command()
@click.argument("model")
@click.argument("release")
@_changes
def promote(model: str, release: str, **given: Any) -> None:
    """Send all traffic of MODEL to RELEASE."""
    _change(given, model, lambda folder, who: rollout.promote(folder, release, who))


@release.command()
@click.argument("model")
@click.argument("weights", metavar="RELEASE=WEIGHT...", nargs=-1, required=True)
@_changes
def traffic(model: str, weights: tuple[str, ...], **given: Any) -> None:
    """Split the traffic of MODEL by weights, e.g. 1=90 2=10. Other releases get none."""
    split = dict(_weight(text) for text in weights)
    if len(split) < len(weights):
        raise click.ClickException("a release is listed twice")
    _change(given, model, lambda folder, who: rollout.traffic(folder, split, who))


@release.command()
@click.argument("model")
@click.argument("release", metavar=f"RELEASE|{NONE}")
@click.option("--share", type=float, default=1.0, help="share of the requests, up to 1  [1.0]")
@click.option(
    "--compare",
    type=click.Choice(["release", "preprocessor"]),
    default="release",
    help="compare whole releases, or only preprocessors  [release]",
)
@_changes
def shadow(model: str, release: str, share: float, compare: Compare, **given: Any) -> None:
    """Send copies of MODEL's requests to RELEASE and discard its answers; `none` stops."""
    chosen = None if release == NONE else release
    _change(given, model, lambda folder, who: rollout.shadow(folder, chosen, who, share, compare))


@release.command()
@click.argument("model")
@_changes
def rollback(model: str, **given: Any) -> None:
    """Undo the last change of MODEL's traffic; repeat to go further back."""
    _change(given, model, rollout.rollback)


@release.command()
@click.argument("model")
@click.argument("release")
@_changes
def load(model: str, release: str, **given: Any) -> None:
    """Load RELEASE of MODEL, so that it can receive traffic."""
    _change(given, model, lambda folder, who: rollout.load(folder, release, who), release)


@release.command()
@click.argument("model")
@click.argument("release")
@_changes
def unload(model: str, release: str, **given: Any) -> None:
    """Unload RELEASE of MODEL, which must not receive traffic. It stays declared."""
    _change(given, model, lambda folder, who: rollout.unload(folder, release, who))


def _change(
    given: dict[str, Any],
    model: str,
    change: Callable[[Path, str], Manifest],
    loads: str | None = None,
) -> None:
    """Make a change and tell what has become of it. Raises ClickException, SystemExit."""
    urls, seconds, no_wait, count = (
        given.pop(name) for name in ("urls", "seconds", "no_wait", "count")
    )
    config = settings(given)
    try:
        edited = change(config.repository / model, _who())
    except RolloutError as error:
        raise click.ClickException(f"{model}: {error}") from None
    split = ", ".join(f"{name}={weight}" for name, weight in edited.traffic.items())
    declared = f"{model}: traffic {split}; shadow {_shadow(edited.shadow)}"
    if no_wait:
        click.echo("\n".join([f"{declared}: declared", *rollout.remarks(edited)]))
        return
    followers = urls or (_local(config),)
    try:
        outcome = gateways.wait(Change(model, edited, loads), followers, seconds, count)
    except Unanswered as error:
        click.echo(f"{declared}: declared")
        click.echo(f"Error: whether it is in force is not known: {error}", err=True)
        sys.exit(NO_GATEWAY)
    if outcome.state is EffectState.IN_FORCE:
        click.echo("\n".join([f"{declared}: {outcome.sentence}", *outcome.remarks]))
        return
    click.echo(f"{declared}: declared")
    late = "" if outcome.state is EffectState.REFUSED else f" after {seconds:.4g} s"
    click.echo(f"Error: not in force{late}: {outcome.sentence}", err=True)
    sys.exit(NOT_IN_FORCE)


def _local(config: Settings) -> str:
    return f"http://127.0.0.1:{config.port}"


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"uid {os.getuid()}"


def _weight(text: str) -> tuple[str, int]:
    name, _, weight = text.rpartition("=")
    if not (name and _WHOLE.fullmatch(weight)):
        raise click.ClickException(f"{text!r} is not RELEASE=WEIGHT, e.g. 1=90")
    return name, int(weight)


def _shadow(shadow: Shadow | None) -> str:
    if shadow is None:
        return NONE
    what = " (preprocessor)" if shadow.compare == "preprocessor" else ""
    return f"{shadow.release} for {shadow.share:.4g} of the requests{what}"
