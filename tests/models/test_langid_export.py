"""The committed `langid` artefact is what its card says, and its split leaks nothing."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gateway_preprocessor import goldens
from langid_preprocessor import LABELS, LangId
from langid_preprocessor.text import character_classes, codepoints

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "model_repository" / "langid"
PYTHON = ROOT / ".venv-models" / "bin" / "python"
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
folder, labels, rows = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
sys.path.insert(0, str(folder))
from training import catalogues, split
samples = catalogues.read()
train, held = split.split(samples)
model = torch.jit.load(str(folder / "1" / "model.pt"))

def run(texts, padding=0):
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
hits, seen, far = defaultdict(list), 0, 0.0
long = [sample for sample in held if len(sample.normal.strip()) >= 20]
for start in range(0, len(long), 32):
    part = long[start : start + 32]
    for sample, row in zip(part, run([s.normal for s in part])):
        hits[sample.language].append(labels[row.argmax()] == sample.language)
some = [sample.normal for sample in held[:: len(held) // 200]] + [" "]
alone = np.concatenate([run([text]) for text in some])
print(json.dumps({
    "languages": sorted({sample.language for sample in train}),
    "held_languages": sorted(hits),
    "held": len(held),
    "long": len(long),
    "share": len({s.message for s in held}) / len({s.message for s in samples}),
    "shared_messages": len({s.message for s in train} & {s.message for s in held}),
    "shared_texts": sorted({bare(s.text) for s in train} & {bare(s.text) for s in held} - {""}),
    "closest": closest,
    "macro": float(np.mean([np.mean(hits[code]) for code in sorted(hits)])),
    "overall": float(np.mean([hit for code in hits for hit in hits[code]])),
    "batched": float(np.abs(run(some) - alone).max()),
    "padded": max(float(np.abs(run(some, more) - alone).max()) for more in (1, 64, 511)),
    "sums": float(np.abs(alone.sum(axis=1) - 1).max()),
    "goldens": [run(["".join(map(chr, row))])[0].tolist() for row in rows],
    "normalised": [[sample.text, sample.normal] for sample in held],
}))
"""


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    rows = [case.tensors["codepoints"].data for case in goldens.load(LangId)]
    command = [PYTHON, "-c", MEASURE, MODEL, json.dumps(LABELS), json.dumps(rows)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def published(measure: str) -> float:
    card = (MODEL / "CARD.md").read_text("utf-8")
    row = re.search(rf"^\| {re.escape(measure)} \| ([\d.]+)", card, re.MULTILINE)
    assert row, f"the card gives no {measure}"
    return float(row[1])


def test_artefact_is_small_and_names_no_path() -> None:
    content = (MODEL / "1" / "model.pt").read_bytes()
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
    assert measured["held_languages"] == measured["languages"]


def test_card_tells_the_accuracy(measured: dict[str, Any]) -> None:
    macro = published("macro accuracy, ≥ 20 characters") / 100
    assert abs(measured["macro"] - macro) <= TENTH
    assert abs(measured["overall"] - published("overall accuracy, ≥ 20 characters") / 100) <= TENTH
    assert measured["long"] == published("strings of ≥ 20 characters")
    assert measured["macro"] >= REQUIRED


def test_batch_equals_singles_whatever_the_padding(measured: dict[str, Any]) -> None:
    assert measured["batched"] <= TOLERANCE
    assert measured["padded"] <= TOLERANCE
    assert measured["sums"] <= 1e-5


def test_goldens_hold_through_the_artefact(measured: dict[str, Any]) -> None:
    for case, scores in zip(goldens.load(LangId), measured["goldens"], strict=True):
        assert case.row is not None
        expected = case.row["scores__0"].array()
        np.testing.assert_allclose(scores, expected, rtol=0, atol=GOLDEN_TOLERANCE)


def test_training_and_serving_normalise_alike(measured: dict[str, Any]) -> None:
    classes = character_classes()
    assert len(measured["normalised"]) == measured["held"]
    for text, normal in measured["normalised"]:
        assert "".join(map(chr, codepoints(text, classes))) == normal, text
