"""Compose files, `.env.example`, docs and settings agree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.settings import Settings
from tests.support.stack import ROOT

FILES = sorted(ROOT.glob("docker-compose*.yml"))
COMPOSE = "\n".join(path.read_text() for path in FILES)
MAIN = (ROOT / "docker-compose.yml").read_text()
DOCS = (ROOT / "docs/deploy.md").read_text()
EXAMPLE = (ROOT / ".env.example").read_text()
DOCKERFILES = sorted((ROOT / "deploy/docker").glob("*.Dockerfile"))

#: Read by Compose itself.
COMPOSES_OWN = {"COMPOSE_FILE", "COMPOSE_PROFILES"}


def read_variables(text: str) -> dict[str, set[str]]:
    """Return the variables that a compose file reads, with their defaults."""
    found: dict[str, set[str]] = {}
    for name, default in re.findall(r"\$\{([A-Z_0-9]+)(?::[-?]([^}]*))?\}", text):
        found.setdefault(name, set()).add(default)
    return found


def listed() -> dict[str, str]:
    """Return what `.env.example` lists: everything there is a default, commented out."""
    return dict(re.findall(r"^#([A-Z_0-9]+)=(.*)$", EXAMPLE, re.MULTILINE))


def section(text: str, name: str) -> str:
    """Return a top-level section of a compose file."""
    found = re.search(rf"(?ms)^{name}:\n(.*?)(?=^\S|\Z)", text)
    assert found
    return found[1]


def test_env_example_lists_exactly_what_is_read() -> None:
    assert listed().keys() - COMPOSES_OWN == read_variables(COMPOSE).keys()


def test_env_example_names_the_defaults() -> None:
    given = listed()
    for name, defaults in read_variables(MAIN).items():
        assert len(defaults) == 1, name
        (default,) = defaults
        if default or name not in settings_read():
            assert given[name] == default, name
        else:  # empty: the gateway's own default
            assert name not in image_defaults(), "an empty value would undo what the image sets"
            assert given[name] == _shown(name), name


def _shown(variable: str) -> str:
    """Return the default of the gateway's own setting as one would write it."""
    value = Settings.model_fields[variable.removeprefix("GATEWAY_").lower()].default
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value in {None, ()} else str(value)


def settings_read() -> set[str]:
    """Return the variables that the gateway service passes on."""
    (block,) = re.findall(
        r"(?ms)^      # Empty means the gateway's own default\.\n(.*?)^    \w", MAIN
    )
    passed = dict(re.findall(r"^      (\w+): \$\{(\w+)", block, re.MULTILINE))
    assert all(inside == outside for inside, outside in passed.items())
    return set(passed)


def image_defaults() -> dict[str, str]:
    """Return what the gateway's image sets."""
    text = (ROOT / "deploy/docker/gateway.Dockerfile").read_text()
    return dict(re.findall(r"\b(GATEWAY_\w+)=(\S+)", text))


def test_what_the_gateway_is_given_are_settings() -> None:
    names = settings_read() | image_defaults().keys()
    assert names <= {f"GATEWAY_{name.upper()}" for name in Settings.model_fields}


@pytest.mark.parametrize("name", sorted(listed()))
def test_every_variable_is_documented(name: str) -> None:
    assert f"`{name}`" in DOCS


def test_every_volume_and_port_is_documented() -> None:
    for volume in re.findall(r"^  (\w+):", section(MAIN, "volumes"), re.MULTILINE):
        (target,) = set(re.findall(rf"[- \"]{volume}:(/[\w/]+)", MAIN))
        assert f"| `{volume}` | `{target}` |" in DOCS
    for port in re.findall(r"_PORT:-(\d+)\}:(\d+)", MAIN):
        assert f":{port[0]}`" in DOCS
        assert (
            any(f"EXPOSE {port[1]}" in path.read_text() for path in DOCKERFILES)
            or port[1] == "3000"
        )


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_end_unprivileged_and_say_what_they_are(path: Path) -> None:
    text = path.read_text()
    assert re.search(r"^ARG BASE=debian:bookworm-slim$", text, re.MULTILINE)
    assert "syntax=" not in text  # it would have to be pulled
    # What stays an image; the others are stages on the way.
    for stage in re.split(r"(?m)^(?=FROM )", text):
        if "LABEL org.opencontainers.image.title" in stage:
            assert re.search(r"^USER (?!0|root)\S+$", stage, re.MULTILINE), stage.splitlines()[0]
            assert re.search(r"^(CMD|ENTRYPOINT) ", stage, re.MULTILINE)
            assert "image.licenses" in stage
