"""The microbenchmark runs for real, and notices a server that answers wrongly or not at all."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from loadtests.load import corpus
from loadtests.load.plan import Plan, Stamps, Stream, Target, Window
from loadtests.micro import inputs
from loadtests.micro.aims import AIMS, judge, windows_of
from loadtests.micro.arms import Sample
from loadtests.micro.bare_handler import started
from tests.support import program
from tests.support.stack import ROOT

pytestmark = pytest.mark.alone

RIGHT = Stamps("tumor", "1", 1, "tumor-preprocessor==1.0.0")


def test_a_smoke_run_holds_every_floor(tmp_path: Path) -> None:
    printed = program.run("loadtests.micro", "--smoke", "--out", str(tmp_path))
    report = json.loads((tmp_path / "report.json").read_text())
    measured = {aim["name"] for aim in report["aims"]}
    assert measured >= {aim.name for aim in AIMS if not aim.name.startswith("int8")}
    assert all(len(aim["values"]) > 0 for aim in report["aims"])
    assert report["windows"]["minilm-64"]["latency_ms"]["requests"] >= 64
    assert report["windows"]["minilm-64"]["figures"]["cosine.min"]["min"] > 0.9999
    assert report["windows"]["stages"]["figures"]["tokenise, inline.wall"]["median"] > 0
    text = (tmp_path / "report.md").read_text()
    assert text in printed
    for secret in (str(ROOT), str(tmp_path), socket.gethostname()):
        assert secret not in text
    assert not program.left_in(tmp_path)


def load(folder: Path, port: int, stamps: Stamps, expected: Path | None) -> Window:
    """Let four users ask for a second's worth of verdicts."""
    stream = Stream(
        name="singles",
        targets=[Target("tumor", stamps)],
        answers="verdict",
        users=4,
        rows=1,
        inputs=str(folder / "records.json"),
        expected=expected and str(expected),
    )
    plan = Plan("127.0.0.1", port, warm_up=0.1, seconds=0.5, streams=[stream], watched={})
    done = subprocess.run(
        [sys.executable, "-m", "loadtests.load.generator"],
        cwd=ROOT,
        input=msgspec.json.encode(plan),
        capture_output=True,
        check=True,
    )
    return msgspec.json.decode(done.stdout, type=Window)


def test_the_generator_judges_every_answer(tmp_path: Path) -> None:
    given = inputs.write(tmp_path, 37)
    with started(RIGHT) as bare:
        right = load(tmp_path, bare.port, RIGHT, None).tallies["singles"]
        other = msgspec.structs.replace(RIGHT, release="2")
        stamped = load(tmp_path, bare.port, other, None).tallies["singles"]
        labelled = load(tmp_path, bare.port, RIGHT, given.verdicts).tallies["singles"]
    assert right.requests == len(right.latencies) > 4
    assert (right.wrong, right.problems) == (0, [])
    assert stamped.wrong >= stamped.requests > 4
    assert "release='1'" in stamped.problems[0]
    assert labelled.wrong > 0
    assert re.match(r"instance \d+: Verdict\(label=.* instead of", labelled.problems[0])


def test_the_generator_fails_where_nobody_answers(tmp_path: Path) -> None:
    inputs.write(tmp_path, 37)
    with started(RIGHT) as bare:
        port = bare.port
    with pytest.raises(subprocess.CalledProcessError):
        load(tmp_path, port, RIGHT, None)


def test_texts_are_distinct_and_of_all_lengths() -> None:
    texts = corpus.texts(2000)
    assert texts == corpus.texts(2000)
    assert len(set(texts)) == 2000
    lengths = [len(text.split()) for text in texts]
    deck = list(range(corpus.SHORTEST, corpus.LONGEST + 1))
    assert sorted(lengths[: len(deck)]) == sorted(lengths[len(deck) : 2 * len(deck)]) == deck
    assert lengths[: len(deck)] != deck


def test_ratios_are_of_one_round_and_of_the_fastest_limit() -> None:
    rates = [
        {"limit-4": 80.0, "limit-8": 100.0, "limit-16": 300.0, "minilm-64": 90.0},
        {"limit-4": 80.0, "limit-8": 200.0, "limit-16": 90.0, "minilm-64": 20.0},
        {"limit-4": 80.0, "limit-8": 200.0, "limit-16": 90.0, "minilm-64": 20.0},
    ]
    rounds = [
        {name: Sample({"rate": rate, "cpu.all": 400 / rate}) for name, rate in item.items()}
        for item in rates
    ]
    assert windows_of(["singles-64"]) == rounds[0].keys()
    (verdict,) = judge(rounds)
    assert verdict.aim.name == "singles-64"
    assert verdict.values == [0.9, 0.1, 0.1]
    assert verdict.by_cpu == pytest.approx(verdict.values)
    assert (verdict.met, verdict.broken) == (False, True)
