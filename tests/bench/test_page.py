"""The report's page and its Markdown: complete, self-contained, true to the results."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.bench import results as written
from loadtests.bench.report import page, palette
from loadtests.bench.results import (
    Scenario,
    Window,
)
from tests.bench.made_up import BASELINES, results, scenario, side_by_side, window
from tests.support.stack import ROOT


def test_the_report_tells_of_the_run_before(tmp_path: Path) -> None:
    for name in ("results.json", written.EARLIER):
        written.write(results(*EVERY_KIND), tmp_path / name)
    command = [sys.executable, "-W", "error", "-m", "loadtests.bench.report"]
    command += [str(tmp_path / "results.json"), "--out", str(tmp_path / "out")]
    subprocess.run(command, cwd=ROOT, check=True)
    for name in ("report.html", "report.md"):
        told = (tmp_path / "out" / name).read_text()
        assert "Measured twice" in told
        assert "The run before this one (today) measured" in told
        title = {"report.html": "Ratios of two runs", "report.md": "| the run before |"}
        assert title[name] in told


def test_the_landed_report_follows_from_its_results() -> None:
    folder = ROOT / "loadtests/report/bench"
    found, earlier = (written.read(folder / name) for name in ("results.json", written.EARLIER))
    said = page.contents(found, page.figures.draw(found, palette.titles(found)), earlier)
    assert page.render("report.md", said) == (folder / "report.md").read_text()


EVERY_KIND = [
    side_by_side([200, 220], [100, 100]),
    scenario([window(arm, point="50/s") for arm in ("gateway", "new")], "open", slo_ms=50.0),
    scenario([window("gateway", point="50/s")], "knee", slo_ms=50.0),
    scenario([window("gateway", point=at) for at in ("1", "21")], "scaling", random_weights=True),
    scenario([window("gateway", point=at) for at in ("alone", "beside")], "neighbour"),
    scenario([Window(arm, 0, "", 9.5) for arm in ("gateway", "tornado_onnx")], "start"),
    scenario([window("gateway", point="")], "rollout"),
    scenario([window("gateway", point=f"part {at}") for at in range(3)], "soak", notes=["<b> & |"]),
]


@pytest.mark.parametrize("kinds", [EVERY_KIND, EVERY_KIND[:1], EVERY_KIND[5:6], [], [scenario([])]])
def test_page_and_markdown_of_any_scenarios(tmp_path: Path, kinds: list[Scenario]) -> None:
    path = tmp_path / "results.json"
    written.write(results(*kinds), path)
    command = [sys.executable, "-W", "error", "-m", "loadtests.bench.report", str(path)]
    subprocess.run([*command, "--out", str(tmp_path / "out")], cwd=ROOT, check=True)
    html = (tmp_path / "out/report.html").read_text()
    markdown = (tmp_path / "out/report.md").read_text()
    for one in kinds:
        assert f"All {one.kind}" in html
        assert f"## All {one.kind}" in markdown
    for drawing in re.findall(r"!\[.*?\]\((.*?)\)", markdown):
        assert (tmp_path / "out" / drawing).read_text().endswith("</svg>\n")
    assert len(re.findall("<figure>", html)) == len(list((tmp_path / "out").glob("*.svg")))


def test_the_page_needs_nothing_but_itself() -> None:
    drawn = page.figures.draw(results(*EVERY_KIND), palette.titles(results(*EVERY_KIND)))
    html = page.render("report.html", page.contents(results(*EVERY_KIND), drawn))
    assert not re.search(r"<(script|link|img|iframe|object|embed)\b|@import|\bsrc=", html)
    assert set(re.findall(r"url\((.)", html)) == {"#"}
    links = set(re.findall(r'href="([^#][^"]*)"', html))
    assert len(links) == 1  # the published comparison, which a reader may follow
    names = re.findall(r'\bid="([^"]*)"', html)
    assert len(names) == len(set(names))
    for name in re.findall(r'(?:url\(|href=")#([^")]*)', html):
        assert name in names
    assert "&lt;b&gt; &amp; |" in html
    assert "<svg" in html
    assert "new" in html  # an arm that the published comparison does not have


def test_arms_keep_their_order_and_colours() -> None:
    assert palette.order(["new", "gateway", "flask_transformers"]) == [
        "flask_transformers",
        "gateway",
        "new",
    ]
    colours = [look.colour for look in palette.LOOKS.values()]
    assert len(set(colours)) == len(colours) == 6
    assert set(BASELINES) < set(palette.LOOKS)
