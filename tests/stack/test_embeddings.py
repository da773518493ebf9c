"""Embeddings over HTTP against a direct computation from the original weights."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.goldens import TOLERANCE
from tests.support.stack import ROOT

SENTENCES = 150
WORDS = [
    "gateway",
    "model",
    "batch",
    "queue",
    "Triton",
    "the",
    "a",
    "of",
    "über",
    "naïve",
    "façade",
    "Straße",
    "漢字",
    "今日は",
    "привет",
    "мир",
    "مرحبا",
    "नमस्ते",
    "😀",
    "42",
    "3.14",
    "don't",
    "e-mail",
    "foo_bar",
    "https://example.org/x?y=1",
    "(brackets)",
    "“quoted”",
    "supercalifragilisticexpialidocious",
    "antidisestablishmentarianism",
    "İstanbul",
    "ﬁne",
    "①",
    "x",
    "y",
    "z",
]


def sentences() -> list[str]:
    """Varied texts: one to 300 words of many scripts, odd spacing, punctuation."""
    rng = random.Random(2026)
    texts = []
    for index in range(SENTENCES):
        words = rng.choices(WORDS, k=1 + (2 * index) ** 4 // 27_000_000)
        texts.append(rng.choice([" ", "  ", ", ", "\n"]).join(words) + rng.choice(["", ".", "?!"]))
    return texts


@pytest.fixture(scope="module")
def reference() -> NDArray[np.float64]:
    """Float (SENTENCES, 384), by PyTorch and a plain-Python tokenizer, one text at a time."""
    script = ROOT / "model_repository/minilm/reference.py"
    done = subprocess.run(
        [str(Path(".venv-models/bin/python")), str(script)],
        cwd=ROOT,
        input=json.dumps(sentences()).encode(),
        capture_output=True,
        check=True,
    )
    return np.array(json.loads(done.stdout))


def embed(client: httpx.Client, model: str, size: int) -> NDArray[np.float64]:
    """Embed all sentences in batches of `size`."""
    rows: list[list[float]] = []
    texts = sentences()
    for start in range(0, SENTENCES, size):
        body = {"inputs": texts[start : start + size]}
        answer = client.post(f"/{model}_batch_predict", json=body)
        assert answer.status_code == 200, answer.text
        rows += [output["embedding"] for output in answer.json()["outputs"]]
    return np.array(rows)


@pytest.mark.parametrize(
    ("model", "sizes"), [("minilm", (1, 7, 32, 150)), ("minilm_torchscript", (32, 150))]
)
def test_embeddings_agree_with_the_original_weights(
    client: httpx.Client, reference: NDArray[np.float64], model: str, sizes: tuple[int, ...]
) -> None:
    singles = np.array(
        [
            client.post(f"/{model}_single_predict", json={"input": text}).json()["output"][
                "embedding"
            ]
            for text in sentences()
        ]
    )
    assert (singles * reference).sum(axis=1).min() > 0.9999
    np.testing.assert_allclose(np.linalg.norm(singles, axis=1), 1.0, atol=TOLERANCE)
    for size in sizes:
        batch = embed(client, model, size)
        assert (batch * reference).sum(axis=1).min() > 0.9999, size
        np.testing.assert_allclose(batch, singles, atol=TOLERANCE, err_msg=f"batches of {size}")
