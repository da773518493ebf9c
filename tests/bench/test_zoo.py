"""The generated models: all formats answer alike, and the gateway serves them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from loadtests.baselines import catalogue as models
from loadtests.bert.texts import wordpiece
from loadtests.zoo import NOTICE, catalogue
from tests.support.stack import ROOT, Stack

MODELS_PYTHON = ROOT / ".venv-models/bin/python"
COUNT = 2
TOLERANCE = 1e-4


def generate(folder: Path, *options: str) -> None:
    command = [MODELS_PYTHON, "-m", "loadtests.zoo", folder, *options]
    subprocess.run(command, cwd=ROOT, check=True)


def references(folder: Path) -> dict[str, catalogue.Cases]:
    content = (folder / catalogue.REFERENCE).read_bytes()
    return msgspec.json.decode(content, type=dict[str, catalogue.Cases])


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    generate(folder, "--count", str(COUNT), "--size", "tiny")
    return folder


FORMATS = """
import json, sys
import onnxruntime, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
checkpoint, onnx, script, cases = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(checkpoint)
loaded = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
session, module = onnxruntime.InferenceSession(onnx), torch.jit.load(script)
texts = json.loads(cases)
alone = [tokenizer(text)["input_ids"] for text in texts]
batch = tokenizer(texts, padding=True, return_tensors="pt")
tensors = batch["input_ids"], batch["attention_mask"]
with torch.inference_mode():
    scores = torch.softmax(loaded(**batch).logits, -1).tolist()
    scripted = module(*tensors).tolist()
feeds = dict(zip(("input_ids", "attention_mask"), (tensor.numpy() for tensor in tensors)))
(ran,) = session.run(["scores__0"], feeds)
print(json.dumps({"tokens": alone, "scores": [scores, scripted, ran.tolist()]}))
"""


def test_every_format_gives_the_reference(zoo: Path) -> None:
    for name, model in models.read(zoo / catalogue.MODELS).items():
        cases = references(zoo)[name]
        texts = [*cases.inputs, "Crème BRÛLÉE, 你好!"]
        paths = [model.checkpoint, model.onnx, model.torchscript, json.dumps(texts)]
        command = [MODELS_PYTHON, "-c", FORMATS, *paths]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        found = json.loads(done.stdout)
        assert found["tokens"] == [wordpiece().encode(text).ids for text in texts]
        for scores in found["scores"]:
            np.testing.assert_allclose(scores[: len(cases.outputs)], cases.outputs, atol=TOLERANCE)
        assert np.ptp(np.array(cases.outputs)[:, 0]) > 10 * TOLERANCE, "all texts look alike"
    first, second = (cases.outputs for cases in references(zoo).values())
    assert first != second


def test_what_is_there_stays(zoo: Path) -> None:
    def stamps() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in zoo.glob("text_*/**/*")}

    before = stamps()
    generate(zoo, "--count", str(COUNT), "--size", "tiny")
    assert stamps() == before


def test_it_says_that_its_weights_are_random(zoo: Path) -> None:
    own = zoo / "text_000"
    for path in (own / "model.onnx", own / "model.pt", own / "checkpoint/model.safetensors"):
        assert NOTICE.encode() in path.read_bytes(), path
    for path in (own / "made.json", own / "checkpoint/config.json", zoo / "NOTICE.txt"):
        assert NOTICE in path.read_text(), path


def test_the_gateway_serves_them(zoo: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "loadtests.zoo.repository", zoo]
    subprocess.run(command, cwd=ROOT, check=True)
    serve = [sys.executable, "-m", "gateway", "serve"]
    stack = Stack(serve, tmp_path, repository=str(zoo / "repository"))
    try:
        with stack.wait_ready().client() as client:
            for name, cases in references(zoo).items():
                body = {"inputs": cases.inputs}
                answer = client.post(f"/{name}_batch_predict", json=body).raise_for_status().json()
                scores = [output["scores"] for output in answer["outputs"]]
                np.testing.assert_allclose(scores, cases.outputs, atol=TOLERANCE)
    finally:
        stack.interrupt()


def test_minilm_is_the_real_one(tmp_path: Path) -> None:
    generate(tmp_path, "--minilm")
    (cases,) = references(tmp_path).values()
    np.testing.assert_allclose(np.linalg.norm(cases.outputs, axis=1), 1, atol=TOLERANCE)
    (model,) = models.read(tmp_path / catalogue.MODELS).values()
    assert model.output == "embedding"
    for path in (model.checkpoint, model.onnx, model.torchscript, model.tokenizer):
        assert Path(path).exists(), path
