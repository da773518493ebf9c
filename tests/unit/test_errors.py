"""The error tree: complete, unique, drawn in its docstring, told in the documentation."""

from __future__ import annotations

import re

import pytest

from gateway import errors
from tests.support.stack import ROOT


def tree(root: type[errors.GatewayError] = errors.GatewayError) -> list[type[errors.GatewayError]]:
    return [root, *(kind for child in root.__subclasses__() for kind in tree(child))]


def test_reasons_are_shown_whole_and_without_paths() -> None:
    words = " ".join(f"word{number}" for number in range(400))
    assert errors.public(f"{words}\n  of /srv/models/tumor/config.pbtxt") == (
        f"{words} of config.pbtxt"
    )
    short = errors.public(" ".join(["wording"] * 1000))
    assert len(short) <= errors.LONGEST_REASON
    assert short.endswith(" wording …")


def test_codes_are_unique() -> None:
    codes = [kind.code for kind in tree()]
    assert len(set(codes)) == len(codes) >= 18


@pytest.mark.parametrize("kind", tree(), ids=lambda kind: kind.code)
def test_every_error_is_drawn_and_documented(kind: type[errors.GatewayError]) -> None:
    drawn = errors.__doc__ or ""
    assert re.search(rf"{kind.__name__}\s+{kind.status} {kind.code}\b", drawn)
    documented = (ROOT / "docs/http.md").read_text()
    assert f"| {kind.status} | `{kind.code}` |" in documented
    assert kind.title
    assert kind.__doc__
