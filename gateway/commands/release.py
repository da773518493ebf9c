"""`gateway release`: show and change how a model's traffic is split over its releases.

Edits `releases.toml`; every gateway that serves the repository follows within a second.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from gateway.commands.options import options, settings
from gateway.commands.table import table
from gateway.releases import history, manifest, rollout
from gateway.releases.manifest import Compare, Manifest, ManifestError, Shadow
from gateway.releases.rollout import RolloutError

URL_SECONDS = 10
NONE = "none"
_WHOLE = re.compile(r"-?[0-9]{1,18}")


@click.group()
def release() -> None:
    """Show and change how a model's traffic is split over its releases."""


@release.command("list")
@click.argument("model", required=False)
@click.option("--url", help="also show the states in this gateway, e.g. http://127.0.0.1:8080")
@options("repository")
def show(model: str | None, url: str | None, **given: Any) -> None:
    """List the releases of MODEL, or of all models, with their traffic."""
    repository = settings(given).repository
    try:
        manifests = manifest.read(repository, (model,) if model else ())
    except ManifestError as error:
        raise click.ClickException(str(error)) from None
    states = _states(url) if url else None
    header = ["model", "release", "version", "preprocessor", "traffic", "shadow", "last change"]
    rows = [header + (["state"] if url else [])]
    for name, declared in manifests.items():
        rows += _rows(name, declared, _last_change(repository / name), states)
    click.echo(table(rows))


@release.command()
@click.argument("model")
@click.argument("release")
@options("repository")
def promote(model: str, release: str, **given: Any) -> None:
    """Send all traffic of MODEL to RELEASE."""
    _change(given, model, lambda folder, who: rollout.promote(folder, release, who))


@release.command()
@click.argument("model")
@click.argument("weights", metavar="RELEASE=WEIGHT...", nargs=-1, required=True)
@options("repository")
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
@options("repository")
def shadow(model: str, release: str, share: float, compare: Compare, **given: Any) -> None:
    """Send copies of MODEL's requests to RELEASE and discard its answers; `none` stops."""
    chosen = None if release == NONE else release
    _change(given, model, lambda folder, who: rollout.shadow(folder, chosen, who, share, compare))


@release.command()
@click.argument("model")
@options("repository")
def rollback(model: str, **given: Any) -> None:
    """Undo the last change of MODEL's traffic; repeat to go further back."""
    _change(given, model, rollout.rollback)


@release.command()
@click.argument("model")
@click.argument("release")
@options("repository")
def load(model: str, release: str, **given: Any) -> None:
    """Load RELEASE of MODEL, so that it can receive traffic."""
    _change(given, model, lambda folder, who: rollout.load(folder, release, who))


@release.command()
@click.argument("model")
@click.argument("release")
@options("repository")
def unload(model: str, release: str, **given: Any) -> None:
    """Unload RELEASE of MODEL, which must not receive traffic. It stays declared."""
    _change(given, model, lambda folder, who: rollout.unload(folder, release, who))


def _change(given: dict[str, Any], model: str, change: Callable[[Path, str], Manifest]) -> None:
    """Apply a change and print the result. Raises ClickException."""
    try:
        edited = change(settings(given).repository / model, _who())
    except RolloutError as error:
        raise click.ClickException(f"{model}: {error}") from None
    split = ", ".join(f"{name}={weight}" for name, weight in edited.traffic.items())
    click.echo(f"{model}: traffic {split}; shadow {_shadow(edited.shadow)}")


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


def _last_change(folder: Path) -> str:
    if not (changes := history.read(folder)):
        return "-"
    last = changes[-1]
    return f"{last.time:%Y-%m-%d %H:%M:%S}Z {last.action} by {last.who}"


def _rows(
    model: str, declared: Manifest, last_change: str, states: Mapping[str, Any] | None
) -> Iterable[list[str]]:
    total, copy = sum(declared.traffic.values()), declared.shadow
    for number, (name, item) in enumerate(declared.releases.items()):
        copied = f"{copy.share:.4g} {copy.compare}" if copy and copy.release == name else "-"
        share = f"{100 * declared.traffic.get(name, 0) / total:.4g}%" if item.load else "unloaded"
        row = [model, name, str(item.model_version), item.preprocessor, share, copied]
        row.append("-" if number else last_change)
        if states is not None:
            row.append(states.get(model, {}).get(name, "not served"))
        yield row


def _states(url: str) -> dict[str, dict[str, str]]:
    """Ask a running gateway: state and reason by model and release. Raises ClickException."""
    if not url.startswith(("http://", "https://")):
        raise click.ClickException(f"{url!r} is not an http:// or https:// address")
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/models", timeout=URL_SECONDS) as answer:  # noqa: S310
            models = json.load(answer)["models"]
        return {
            model["model"]: {
                name: ": ".join(str(one[key]) for key in ("state", "reason") if one.get(key))
                for name, one in model["releases"].items()
            }
            for model in models
        }
    except OSError as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise click.ClickException(f"{url} does not answer: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise click.ClickException(f"{url} does not answer like a gateway") from None
