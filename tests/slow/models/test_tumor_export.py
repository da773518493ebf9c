"""The committed `tumor` artefact is what its card says, and its goldens hold through it."""

import json
import re
import subprocess
from typing import Any

import pytest

from tests.slow.models.artefact import PYTHON, measure
from tests.support.stack import ROOT

MODEL = ROOT / "model_repository" / "tumor"
GOLDENS = ROOT / "preprocessors" / "tumor" / "src" / "tumor_preprocessor" / "goldens.json"
TOLERANCE = 1e-6

#: Runs in the environment that has ONNX Runtime and scikit-learn; prints one JSON object.
MEASURE = """
import json, runpy, sys
from pathlib import Path
import numpy as np, onnx
folder, goldens = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
export = runpy.run_path(str(folder / "export.py"))
content = (folder / "1" / "model.onnx").read_bytes()
split = export["load"]()
batch = export["predict"](content, split.held_out)
singles = np.concatenate([export["predict"](content, row[None]) for row in split.held_out])
graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(content)).graph
shape = lambda value: [size.dim_value or -1 for size in value.type.tensor_type.shape.dim]
rows = np.array([case["tensors"]["features"]["data"] for case in goldens], np.float32)
print(json.dumps({
    "features": split.features,
    "labels": split.labels,
    "figures": {name: float(value) for name, value in export["evaluate"](content, split).items()},
    "apart": float(np.abs(batch - singles).max()),
    "inputs": {value.name: shape(value) for value in graph.input},
    "outputs": {value.name: shape(value) for value in graph.output},
    "goldens": export["predict"](content, rows).tolist(),
}))
"""


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    return measure(MEASURE, MODEL, GOLDENS, seconds=300)


def test_artefact_is_small_and_names_no_path() -> None:
    content = (MODEL / "1" / "model.onnx").read_bytes()
    assert len(content) <= 2_000_000
    assert not re.search(rb"/(home|root|tmp|usr|work|opt|Users|mnt|builds?)/|\.py\b", content)
    assert str(ROOT).encode() not in content


def test_card_publishes_what_the_artefact_does(measured: dict[str, Any]) -> None:
    card = (MODEL / "CARD.md").read_text(encoding="utf-8")
    section = card.split("## Held-out rows")[1].split("##")[0]
    published = re.findall(r"^\| ([^|]+) \| ([\d.]+) \|$", section, re.MULTILINE)
    assert {name: float(value) for name, value in published} == {
        name: pytest.approx(value, abs=1e-4) for name, value in measured["figures"].items()
    }
    assert measured["figures"]["accuracy"] >= 0.94
    assert measured["figures"]["ROC AUC"] >= 0.98


def test_graph_fits_the_configuration(measured: dict[str, Any]) -> None:
    assert measured["inputs"] == {"features": [-1, 30]}
    assert measured["outputs"] == {"probabilities": [-1, 2]}
    config = (MODEL / "config.pbtxt").read_text(encoding="utf-8")
    assert 'name: "features" data_type: TYPE_FP32 dims: [ 30 ]' in config
    assert 'name: "probabilities" data_type: TYPE_FP32 dims: [ 2 ]' in config


def test_preprocessor_knows_the_data_sets_names(measured: dict[str, Any]) -> None:
    from tumor_preprocessor import FEATURES, LABELS  # noqa: PLC0415 - only this test needs it

    assert measured["features"] == list(FEATURES)
    assert measured["labels"] == list(LABELS)


def test_batch_equals_singles(measured: dict[str, Any]) -> None:
    assert measured["apart"] <= TOLERANCE


def test_goldens_hold_through_the_artefact(measured: dict[str, Any]) -> None:
    cases = json.loads(GOLDENS.read_text(encoding="utf-8"))
    for case, probabilities in zip(cases, measured["goldens"], strict=True):
        best = max(probabilities)
        assert measured["labels"][probabilities.index(best)] == case["output"]["label"]
        assert best == pytest.approx(case["output"]["probability"], abs=case["output_tolerance"])


def test_help() -> None:
    command = [PYTHON, MODEL / "export.py", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0
    assert "model.onnx" in done.stdout
