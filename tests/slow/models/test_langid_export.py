"""The committed `langid` artefacts are what their card says, and the split leaks nothing."""

import json
import re
from typing import Any

import numpy as np
import pytest
from gateway_preprocessor import Prepared
from gateway_preprocessor.runner import Runner
from langid_preprocessor import LABELS, LangId
from langid_preprocessor.text import character_classes, codepoints

from tests.slow.models.artefact import measure
from tests.support.goldens import cases
from tests.support.stack import ROOT

MODEL = ROOT / "model_repository" / "langid"
VERSIONS = (1, 2)
RUNNER = Runner(LangId())
REQUIRED = 0.92
#: A tenth of a point of accuracy.
TENTH = 0.001
#: float32 arithmetic.
TOLERANCE = 1e-6
#: The golden rows come from float64 arithmetic.
GOLDEN_TOLERANCE = 1e-5

#: Runs in the environment that has torch and django; prints one JSON object. It takes the strings
#: from the export's modules, but judges split and model with code of its own.
MEASURE = r"""
import json, re, sys, unicodedata
from collections import defaultdict
from pathlib import Path
import numpy as np, torch
folder, labels, versions, rows = Path(sys.argv[1]), *map(json.loads, sys.argv[2:])
sys.path.insert(0, str(folder))
from training import catalogues, split
samples = catalogues.read()
train, held = split.split(samples)

def run(model, texts, padding=0):
    codes = np.zeros((len(texts), max(map(len, texts)) + padding), np.int32)
    for row, text in zip(codes, texts):
        row[: len(text)] = [ord(char) for char in text]
    with torch.inference_mode():
        return model(torch.from_numpy(codes)).numpy()

def bare(text):
    text = re.sub(r"%\(\w+\)\w|%\w\b|\{\w*\}|</?\w[^>]*>", " ", text).lower()
    return "".join(char for char in text if unicodedata.category(char)[0] in "LM")

def pieces(text):
    return {text[i : i + 4] for i in range(len(text) - 3)} or {text}

def overlap(a, b):
    return len(a & b) / len(a | b)

sides = [defaultdict(list), defaultdict(list)]
for side, part in zip(sides, (train, held)):
    for sample in part:
        side[sample.language].append(pieces(sample.normal.replace(" ", "")))
closest = max(
    max((overlap(a, b) for a in sides[0][code]), default=0)
    for code in labels for b in sides[1][code]
)
some = [sample.normal for sample in held[:: len(held) // 200]] + [" "]

def measured(version):
    model = torch.jit.load(str(folder / str(version) / "model.pt"))
    hits, long = defaultdict(list), defaultdict(list)
    for start in range(0, len(held), 32):
        part = held[start : start + 32]
        for sample, row in zip(part, run(model, [sample.normal for sample in part])):
            hit = labels[row.argmax()] == sample.language
            hits[sample.language].append(hit)
            if len(sample.normal.strip()) >= 20:
                long[sample.language].append(hit)
    alone = np.concatenate([run(model, [text]) for text in some])
    return {
        "languages": sorted(long),
        "long": sum(map(len, long.values())),
        "macro": float(np.mean([np.mean(hits[code]) for code in hits])),
        "overall": float(np.mean(sum(hits.values(), []))),
        "long_macro": float(np.mean([np.mean(long[code]) for code in long])),
        "long_overall": float(np.mean(sum(long.values(), []))),
        "batched": float(np.abs(run(model, some) - alone).max()),
        "padded": max(float(np.abs(run(model, some, n) - alone).max()) for n in (1, 64, 511)),
        "sums": float(np.abs(alone.sum(axis=1) - 1).max()),
        "goldens": [run(model, ["".join(map(chr, row))])[0].tolist() for row in rows],
    }

print(json.dumps({
    "languages": sorted({sample.language for sample in train}),
    "held": len(held),
    "share": len({s.message for s in held}) / len({s.message for s in samples}),
    "shared_messages": len({s.message for s in train} & {s.message for s in held}),
    "shared_texts": sorted({bare(s.text) for s in train} & {bare(s.text) for s in held} - {""}),
    "closest": closest,
    "normalised": [[sample.text, sample.normal] for sample in held],
    "versions": {version: measured(version) for version in versions},
}))
"""


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    rows = [case.golden.tensors["codepoints"].data for case in cases("langid")]
    return measure(MEASURE, MODEL, *map(json.dumps, (LABELS, VERSIONS, rows)), seconds=600)


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


@pytest.fixture
def figures(measured: dict[str, Any], version: int) -> dict[str, Any]:
    """What was measured of one version."""
    found: dict[str, Any] = measured["versions"][str(version)]
    return found


def published(measure: str, version: int) -> float:
    """A share that the card gives."""
    card = (MODEL / "CARD.md").read_text("utf-8")
    row = re.search(rf"^\| {re.escape(measure)} \| (.*) \|$", card, re.MULTILINE)
    assert row, f"the card gives no {measure}"
    return float(row[1].split(" | ")[version - 1].removesuffix(" %")) / 100


def test_artefact_is_small_and_names_no_path(version: int) -> None:
    content = (MODEL / str(version) / "model.pt").read_bytes()
    assert len(content) <= 2_000_000
    assert not re.search(rb"site-packages|debug_pkl|/(home|root|work|usr|opt|tmp|Users)/", content)
    assert str(ROOT).encode() not in content


def test_languages_agree_with_labels_and_configuration(measured: dict[str, Any]) -> None:
    assert measured["languages"] == list(LABELS)
    assert len(LABELS) >= 40
    config = (MODEL / "config.pbtxt").read_text("utf-8")
    assert f'"scores__0" data_type: TYPE_FP32 dims: [ {len(LABELS)} ]' in config


def test_split_leaks_nothing(measured: dict[str, Any]) -> None:
    assert measured["shared_messages"] == 0
    assert measured["shared_texts"] == []
    assert measured["closest"] < 0.5
    assert 0.19 < measured["share"] < 0.25
    assert measured["versions"]["1"]["languages"] == measured["languages"]


def test_card_tells_the_accuracy(figures: dict[str, Any], version: int) -> None:
    for name in ("macro", "overall"):
        every = published(f"{name} accuracy, all lengths", version)
        assert abs(figures[name] - every) <= TENTH
        long = published(f"{name} accuracy, ≥ 20 characters", version)
        assert abs(figures[f"long_{name}"] - long) <= TENTH
    card = (MODEL / "CARD.md").read_text("utf-8")
    assert f"{figures['long']} strings have 20 characters" in card
    assert figures["long_macro"] >= REQUIRED


def test_version_2_is_the_better_one(measured: dict[str, Any]) -> None:
    first, second = (measured["versions"][str(version)] for version in VERSIONS)
    assert second["overall"] > first["overall"] + 5 * TENTH
    assert second["macro"] > first["macro"] + 5 * TENTH
    assert second["long_macro"] > first["long_macro"]


def test_batch_equals_singles_whatever_the_padding(figures: dict[str, Any]) -> None:
    assert figures["batched"] <= TOLERANCE
    assert figures["padded"] <= TOLERANCE
    assert figures["sums"] <= 1e-5


def test_goldens_hold_through_the_artefact(figures: dict[str, Any], version: int) -> None:
    for case, scores in zip(cases("langid"), figures["goldens"], strict=True):
        golden, row = case.golden, np.array(scores, np.float32)
        if version == 1:  # the wheel's raw outputs
            assert golden.row is not None
            expected = golden.row["scores__0"].array()
            np.testing.assert_allclose(row, expected, rtol=0, atol=GOLDEN_TOLERANCE)
        (prepared,) = RUNNER.prepare([golden.payload])
        assert isinstance(prepared, Prepared)
        (result,) = RUNNER.finish({"scores__0": row[None]}, [prepared.context])
        assert isinstance(result, bytes)
        assert case.wrong(json.loads(result), version) is None


def test_training_and_serving_normalise_alike(measured: dict[str, Any]) -> None:
    classes = character_classes()
    assert len(measured["normalised"]) == measured["held"]
    for text, normal in measured["normalised"]:
        assert "".join(map(chr, codepoints(text, classes))) == normal, text
