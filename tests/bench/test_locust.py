"""Locust runs for real against the shared stack, and counts wrong answers as failures."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from loadtests import questions
from loadtests.load.protocol import JSON_LENGTH
from loadtests.questions import Model, Question, ask, wrong
from tests.support.stack import ROOT, Stack

CHANCE = random.Random(5)
#: The corpus and the golden cases, read once.
MODELS = {model.name: model for model in questions.models([], None)}


def locust(host: str, *more: str) -> tuple[int, dict[str, Any], str]:
    """Run Locust without its web page; returns exit status, lines by name, and its words."""
    command = [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", "--headless"]
    command += ["--host", host, "--users", "8", "--spawn-rate", "8", "--stop-timeout", "30"]
    command += ["--json", *more]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False
    )
    lines, text = [], done.stdout.strip()
    while text:  # one list a process; those of workers are empty
        found, end = json.JSONDecoder().raw_decode(text)
        lines, text = lines + found, text[end:].strip()
    return done.returncode, {line["name"]: line for line in lines}, done.stderr


def test_every_model_answers_rightly_under_load_of_two_processes(stack: Stack) -> None:
    mixed = ["--singles", "3", "--batches", "1", "--rows", "5"]
    status, lines, words = locust(stack.url, "--processes", "2", "--run-time", "5s", *mixed)
    assert status == 0, words
    for model in questions.REPOSITORY:
        for kind in ("single", "batch of 5"):
            assert lines[f"{model}, {kind}"]["num_requests"] > 0
    assert sum(line["num_failures"] for line in lines.values()) == 0
    left = [p for p in psutil.process_iter(["cmdline"]) if "locust" in (p.info["cmdline"] or ())]
    assert not left


def test_a_release_can_be_pinned_and_models_weighted(stack: Stack) -> None:
    chosen = ["--models", "langid:3,tumor", "--release", "1", "--run-time", "3s"]
    status, lines, words = locust(stack.url, *chosen)
    assert status == 0, words
    assert set(lines) == {"langid, single", "tumor, single"}
    assert lines["langid, single"]["num_requests"] > lines["tumor, single"]["num_requests"]


@contextmanager
def server(status: int, body: bytes) -> Iterator[str]:
    """Answer every request with the same."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Be quiet."""

    found = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=found.serve_forever).start()
    try:
        yield f"http://127.0.0.1:{found.server_port}"
    finally:
        found.shutdown()
        found.server_close()


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (200, b'{"output":{"embedding":[1,2,3]}}', "not as promised: Expected `array` of length"),
        (503, b'{"code":"draining"}', "status 503 draining"),
    ],
)
def test_a_server_that_answers_wrongly_fails(status: int, body: bytes, told: str) -> None:
    with server(status, body) as url:
        code, lines, words = locust(url, "--models", "minilm", "--run-time", "2s")
    assert code == 1
    (line,) = lines.values()
    assert line["num_failures"] == line["num_requests"] > 0
    assert told in words


def test_a_server_that_is_not_there_fails() -> None:
    with server(200, b"{}") as url:
        pass
    code, lines, words = locust(url, "--models", "tumor", "--run-time", "2s")
    assert code == 1
    (line,) = lines.values()
    assert line["num_failures"] == line["num_requests"] > 0
    assert "no answer: ConnectionRefusedError" in words


def test_a_model_that_is_not_there_ends_the_run() -> None:
    code, lines, words = locust("http://127.0.0.1:9", "--models", "mini", "--run-time", "2s")
    assert code == 2
    assert not lines
    assert "no model 'mini'; there are minilm, " in words


STAMPS = {"model": "tumor", "release": "1", "model_version": 1, "preprocessor": "p==1"}
RIGHT = MODELS["tumor"].cases[0].expected[1]


def golden() -> Question:
    return ask(MODELS["tumor"]._replace(cases=MODELS["tumor"].cases[:1]), "predict", 1, CHANCE)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"output": RIGHT} | STAMPS, None),
        ({"output": RIGHT}, "stamped '' instead of 'tumor'"),
        ({"output": RIGHT} | STAMPS | {"release": ""}, "a stamp is missing"),
        ({"output": RIGHT | {"probability": 0.6}} | STAMPS, "not the right answer to"),
        ({"output": RIGHT | {"label": "benign"}} | STAMPS, "not the right answer to"),
        ({"output": {"label": "malignant"}} | STAMPS, "missing required field `probability`"),
        ({"outputs": [RIGHT]} | STAMPS, "missing required field `output`"),
    ],
)
def test_singles_are_judged(answer: Any, told: str | None) -> None:
    problem = wrong(golden(), 200, {}, json.dumps(answer).encode(), stamped=True)
    assert problem is None if told is None else told in str(problem)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_are_finite(number: str) -> None:
    body = json.dumps({"output": RIGHT} | STAMPS).replace(str(RIGHT["probability"]), number)
    assert "not as promised" in str(wrong(golden(), 200, {}, body.encode(), stamped=True))


def test_baselines_carry_no_stamps_and_batches_have_as_many_outputs() -> None:
    body = json.dumps({"outputs": [RIGHT, RIGHT]}).encode()
    only = MODELS["tumor"]._replace(cases=MODELS["tumor"].cases[:1])
    two, three = (ask(only, "predict", rows, CHANCE) for rows in (2, 3))
    assert wrong(two, 200, {}, body, stamped=False) is None
    assert wrong(three, 200, {}, body, stamped=False) == "2 outputs for 3 instances"
    assert json.loads(two.body) == {"inputs": [only.cases[0].input] * 2}


def test_another_version_is_held_against_its_own_results() -> None:
    case = next(c for c in MODELS["langid"].cases if c.expected and c.expected[1] != c.expected[2])
    question = ask(MODELS["langid"]._replace(cases=[case]), "predict", 1, CHANCE)
    stamps = {"model": "langid", "release": "2", "preprocessor": "p==1"}
    for version in (1, 2):
        answer = {"output": case.expected[version], "model_version": version} | stamps
        assert wrong(question, 200, {}, json.dumps(answer).encode(), stamped=True) is None
        answer["model_version"] = 3 - version
        assert wrong(question, 200, {}, json.dumps(answer).encode(), stamped=True)


@pytest.fixture
def classifier(tmp_path: Path) -> Model:
    entry = {
        "output": "scores",
        "onnx": "a",
        "checkpoint": "b",
        "torchscript": "c",
        "tokenizer": "d",
    }
    (tmp_path / "models.json").write_text(json.dumps({"text_000": entry, "text_001": entry}))
    reference = {"inputs": ["a cat"], "outputs": [[0.25, 0.75]]}
    (tmp_path / "reference.json").write_text(
        json.dumps({"text_000": reference, "text_001": reference})
    )
    found = questions.models(["text_000"], tmp_path / "models.json")
    assert [model.name for model in found] == ["text_000"]
    assert len(found[0].cases) > questions.TEXTS
    return found[0]._replace(cases=found[0].cases[:1])


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        ([0.25, 0.75], None),
        ([0.35, 0.65], "not the right answer to 'a cat'"),
        ([np.nan, 0.75], "not finite"),
        ([0.25], "not as promised"),
    ],
)
def test_tensors_of_a_model_of_random_weights(
    classifier: Model, scores: list[float], told: str | None
) -> None:
    question = ask(classifier, "v2", 1, CHANCE)
    assert question.path == "/v2/models/text_000_ensemble/infer"
    head = json.dumps({"outputs": [{"name": "scores", "shape": [1, len(scores)]}]}).encode()
    headers = {JSON_LENGTH: str(len(head))}
    problem = wrong(question, 200, headers, head + np.float32(scores).tobytes(), stamped=False)
    assert problem is None if told is None else told in str(problem)
    assert "not as promised" in str(wrong(question, 200, {}, head, stamped=False))
