"""The documentation is executed: README commands give the answers shown beside them."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any, NamedTuple, cast

import prometheus_client
import pytest
from gateway_preprocessor.goldens import difference
from prometheus_client.metrics import MetricWrapperBase

from gateway.app import application
from gateway.serving.predict import Predictor
from gateway.settings import Settings
from gateway.telemetry import metrics
from tests.support.stack import ROOT, Stack

README = (ROOT / "README.md").read_text()
#: Answers come from another machine than this one, perhaps.
TOLERANCE = 1e-3


class Shown(NamedTuple):
    """A command of the README and the JSON it shows as the answer."""

    command: str
    answer: str


SHOWN = [
    Shown(*found)
    for found in re.findall(r"```bash\n(curl .*?)```\n\n```json\n(.*?)```", README, re.DOTALL)
]


def test_the_readme_shows_every_model_and_an_error() -> None:
    assert len(SHOWN) == 5


@pytest.mark.parametrize("shown", SHOWN, ids=lambda shown: shown.command.split()[2].split("/")[-1])
def test_readme_commands_answer_as_shown(stack: Stack, shown: Shown) -> None:
    command = shown.command.replace("http://127.0.0.1:8080", stack.url)
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert difference(json.loads(shown.answer), json.loads(done.stdout), TOLERANCE) is None


def test_other_readme_commands_are_targets() -> None:
    commands = re.findall(r"```bash\n(make .*?)\n```", README)
    assert commands == ["make up", "make test"]
    assert "```bash\ndocker compose up -d --wait\n```" in README  # tests/compose types it
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in re.findall(r"`make ([a-z-]+)`", README + (ROOT / "CONTRIBUTING.md").read_text()):
        assert re.search(rf"^{target}\s", shown.stdout, re.MULTILINE), target


def test_make_up_told_what_to_paste(stack: Stack) -> None:
    output = stack.output.read_text()
    for model in ("minilm", "minilm_torchscript", "langid", "digits", "tumor"):
        assert f"ready: {model}, release 1" in output
        assert f"/{model}_single_predict" in output
    command = output[output.index("  curl ") :].splitlines()[0]
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert "output" in json.loads(done.stdout)


def test_every_metric_is_documented() -> None:
    documented = (ROOT / "docs/http.md").read_text()
    families = [m for m in vars(metrics).values() if isinstance(m, MetricWrapperBase)]
    assert len(families) > 10
    for family in families:
        name = family.describe()[0].name
        suffix = "_total" if isinstance(family, prometheus_client.Counter) else ""
        assert f"`{name}{suffix}`" in documented


def test_every_route_is_documented() -> None:
    documented = (ROOT / "docs/http.md").read_text()
    app = application(
        Predictor(), cast("Any", None), cast("Any", None), Settings(), cast("Any", None)
    )
    for rule in app.wildcard_router.rules:
        path = rule.matcher.regex.pattern.removesuffix("$").replace("([^/]+)", "{model}")
        assert f" {path}`" in documented


def test_links_lead_somewhere() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), ROOT / "CONTRIBUTING.md"]
    for page in pages:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
