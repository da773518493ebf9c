"""Release 3 of `minilm`, the encoder in eight bits: its file, its likeness to float32, its gate."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from gateway.releases import lock, manifest
from tests.support.goldens import TOLERANCE, Case, cases
from tests.support.repository import copied
from tests.support.stack import GATEWAY, ROOT

MODEL = ROOT / "model_repository/minilm"
PYTHON = ROOT / ".venv-models/bin/python"
#: Held-out paragraphs, docstrings, messages and translations: fewer than QUALITY.md's.
COUNTS = (240, 20, 70, 70)
ROWS, NEIGHBOURS = 50, 10
HELD_OUT = """
import json, sys
from texts import HELD_OUT, texts
kinds = texts(HELD_OUT, calibration=False, counts=json.loads(sys.argv[1]))
json.dump([text for kind in kinds for text in kind], sys.stdout)
"""


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Texts that calibration did not see."""
    done = subprocess.run(
        [PYTHON, "-c", HELD_OUT, json.dumps(COUNTS)], cwd=MODEL, capture_output=True, check=True
    )
    found: list[str] = json.loads(done.stdout)
    return found


def embeddings(client: httpx.Client, texts: list[str], release: str) -> NDArray[np.float64]:
    """Embed texts with one release, in batches; float (texts, 384)."""
    rows: list[list[float]] = []
    for start in range(0, len(texts), ROWS):
        body = {"inputs": texts[start : start + ROWS]}
        answer = client.post("/minilm_batch_predict", json=body, headers={"X-Release": release})
        assert answer.status_code == 200, answer.text
        assert answer.json()["release"] == release
        rows += [output["embedding"] for output in answer.json()["outputs"]]
    return np.array(rows)


def nearest(queries: NDArray[np.float64], corpus: NDArray[np.float64]) -> NDArray[np.intp]:
    """Find the nearest others of each query, (queries, NEIGHBOURS)."""
    similarities = queries @ corpus.T
    np.fill_diagonal(similarities, -1)
    return np.argpartition(-similarities, NEIGHBOURS)[:, :NEIGHBOURS]


def locked_digest() -> str:
    locked = lock.read(MODEL)
    assert locked
    return locked.releases["3"].model["2/model.onnx"].removeprefix("sha256:")


def test_every_cpu_builds_the_locked_bytes(tmp_path: Path) -> None:
    """Built again with one thread and without the instructions that numpy prefers here."""
    for source in [*MODEL.glob("*.py"), MODEL / "calibration.npz"]:
        shutil.copy2(source, tmp_path)
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
    }
    subprocess.run([PYTHON, tmp_path / "quantise.py"], env=environment, check=True)
    built = (tmp_path / "2/model.onnx").read_bytes()
    assert hashlib.sha256(built).hexdigest() == locked_digest()
    assert len(built) < (MODEL / "1/model.onnx").stat().st_size / 3


def test_the_quality_report_is_about_the_locked_file() -> None:
    report = (MODEL / "QUALITY.md").read_text(encoding="utf-8")
    assert locked_digest() in report
    assert "MISSED" not in report


def test_it_is_as_good_as_asked_on_held_out_texts(client: httpx.Client, texts: list[str]) -> None:
    reference, found = (embeddings(client, texts, release) for release in ("2", "3"))
    cosines = (reference * found).sum(1)
    assert cosines.mean() > 0.998
    assert cosines.min() > 0.99
    wanted = nearest(reference, reference)
    for kept in (nearest(found, found), nearest(found, reference)):  # one space, and mixed
        pairs = zip(wanted, kept, strict=True)
        assert np.mean([len(np.intersect1d(*pair)) / NEIGHBOURS for pair in pairs]) > 0.95


def test_neighbours_in_a_batch_do_not_change_a_result(
    client: httpx.Client, texts: list[str]
) -> None:
    some = texts[:: len(texts) // 40]
    pinned = {"headers": {"X-Release": "3"}}
    singles = [
        client.post("/minilm_single_predict", json={"input": text}, **pinned).json()["output"]
        for text in some
    ]
    alone = np.array([output["embedding"] for output in singles])
    np.testing.assert_allclose(embeddings(client, some, "3"), alone, atol=TOLERANCE)


@pytest.mark.parametrize("case", cases("minilm"), ids=lambda case: case.golden.name)
def test_who_pins_it_gets_it(client: httpx.Client, case: Case) -> None:
    answer = client.post("/minilm_single_predict", json=case.single, headers={"X-Release": "3"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["X-Release"] == "3"
    stamps = {key: value for key, value in answer.json().items() if key != "output"}
    assert stamps == {
        "model": "minilm",
        "release": "3",
        "model_version": 2,
        "preprocessor": "minilm-preprocessor==2.0.0",
    }
    found = np.array(answer.json()["output"]["embedding"])
    apart = np.abs(found - case.golden.output["embedding"]).max()
    tolerance = manifest.read_one(MODEL / manifest.FILE).releases["3"].tolerance
    assert tolerance is not None
    assert 1e-4 < apart < tolerance  # another model's answer, and near enough


def test_nobody_else_gets_it(client: httpx.Client) -> None:
    assert client.get("/models/minilm").json()["traffic"].get("3", 0) == 0


def test_the_gate_rejects_it_where_less_is_tolerated(tmp_path: Path) -> None:
    repository = copied(tmp_path / "repository", ["minilm"])
    declared = repository / "minilm" / manifest.FILE
    text = declared.read_text()
    assert "tolerance = 0.02" in text
    declared.write_text(text.replace("tolerance = 0.02", "tolerance = 1e-4"))
    paths = ("--repository", str(repository), "--run-dir", str(tmp_path / "run"))
    command = [GATEWAY, "check", "--seconds", "180", *paths, "--log-file", str(tmp_path / "log")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "2 aligned, 1 failed" in done.stdout, done.stdout + done.stderr
    (row,) = (line for line in done.stdout.splitlines() if "rejected" in line)
    assert row.split()[:2] == ["minilm", "3"]
    assert "(± 0.0001)" in row
