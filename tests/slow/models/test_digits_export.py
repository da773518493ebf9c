"""The committed `digits` artefact is what its card says, and its goldens hold through it."""

import json
import re
import subprocess
from typing import Any

import pytest

from tests.slow.models.artefact import PYTHON, measure
from tests.support.stack import ROOT

MODEL = ROOT / "model_repository" / "digits"
GOLDENS = ROOT / "preprocessors" / "digits" / "src" / "digits_preprocessor" / "goldens.json"
TOLERANCE = 1e-6
REQUIRED = 0.97
#: Another CPU, or another JPEG encoder, may turn one of the 360 held-out rows.
ONE_ROW = 1 / 360 + 1e-4

#: Runs in the environment that has ONNX Runtime and scikit-learn; prints one JSON object.
MEASURE = """
import base64, json, runpy, sys
from pathlib import Path
import numpy as np, onnx
folder, goldens = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
export = runpy.run_path(str(folder / "export.py"))
content = (folder / "1" / "model.onnx").read_bytes()
split = export["load"]()
images = export["raw"](split.held_out)
batch = export["predict"](content, images)
singles = np.concatenate([export["predict"](content, image[None]) for image in images])
model = onnx.load_from_string(content)
graph = onnx.shape_inference.infer_shapes(model).graph
shape = lambda value: [size.dim_value or -1 for size in value.type.tensor_type.shape.dim]
parts = [model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info]
files = [base64.b64decode(case["input"]["image"]) for case in goldens]
print(json.dumps({
    "figures": export["evaluate"](content, split),
    "apart": float(np.abs(batch - singles).max()),
    "sums": float(np.abs(batch.sum(axis=1) - 1).max()),
    "inputs": {value.name: shape(value) for value in graph.input},
    "outputs": {value.name: shape(value) for value in graph.output},
    "notes": sum(len(part.metadata_props) + len(part.doc_string) for part in parts),
    "goldens": export["predict"](content, export["preprocessed"](files)).tolist(),
}))
"""


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    return measure(MEASURE, MODEL, GOLDENS, seconds=600)


def test_artefact_is_small_and_names_no_path() -> None:
    content = (MODEL / "1" / "model.onnx").read_bytes()
    assert len(content) <= 2_000_000
    assert not re.search(rb"/(home|root|tmp|usr|work|opt|Users|mnt|builds?)/|\.py\b", content)
    assert str(ROOT).encode() not in content


def test_exporter_left_no_notes(measured: dict[str, Any]) -> None:
    assert measured["notes"] == 0


def test_card_publishes_what_the_artefact_does(measured: dict[str, Any]) -> None:
    card = (MODEL / "CARD.md").read_text(encoding="utf-8")
    section = card.split("## Held-out accuracy")[1].split("##")[0]
    published = re.findall(r"^\| ([^|]+) \| ([\d.]+) \|$", section, re.MULTILINE)
    assert {name: float(value) for name, value in published} == {
        name: pytest.approx(value, abs=ONE_ROW) for name, value in measured["figures"].items()
    }


def test_accuracy_holds_on_arrays_and_through_files(measured: dict[str, Any]) -> None:
    assert len(measured["figures"]) >= 8
    assert min(measured["figures"].values()) >= REQUIRED


def test_graph_fits_the_configuration(measured: dict[str, Any]) -> None:
    assert measured["inputs"] == {"image": [-1, 1, 8, 8]}
    assert measured["outputs"] == {"scores": [-1, 10]}
    config = (MODEL / "config.pbtxt").read_text(encoding="utf-8")
    assert 'name: "image" data_type: TYPE_FP32 dims: [ 1, 8, 8 ]' in config
    assert 'name: "scores" data_type: TYPE_FP32 dims: [ 10 ]' in config


def test_scores_are_probabilities(measured: dict[str, Any]) -> None:
    assert measured["sums"] <= TOLERANCE


def test_batch_equals_singles(measured: dict[str, Any]) -> None:
    assert measured["apart"] <= TOLERANCE


def test_goldens_hold_through_preprocessor_and_artefact(measured: dict[str, Any]) -> None:
    cases = json.loads(GOLDENS.read_text(encoding="utf-8"))
    assert [case["output"]["label"] for case in cases] == list(range(10))
    for case, scores in zip(cases, measured["goldens"], strict=True):
        assert scores.index(max(scores)) == case["output"]["label"]
        assert scores == pytest.approx(case["output"]["scores"], abs=case["output_tolerance"])


def test_help() -> None:
    command = [PYTHON, MODEL / "export.py", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0
    assert "model.onnx" in done.stdout
