"""The minilm preprocessor keeps the contract, and truncates as its README says."""

import json
import random

import pytest
from gateway_preprocessor import InvalidInput, Payload, Prepared, Runner
from gateway_preprocessor.testing import check
from minilm_preprocessor import MAX_TOKENS, MiniLM


def test_contract() -> None:
    assert check(MiniLM)["goldens"] >= 8


@pytest.mark.parametrize("text", ["word " * 20_000, "x" * 100_000, "漢" * 40_000])
def test_truncates_long_text_to_256_tokens(text: str) -> None:
    (prepared,) = Runner(MiniLM()).prepare([Payload(json.dumps(text).encode())])
    assert isinstance(prepared, Prepared)
    ids = prepared.tensors["input_ids"]
    assert len(ids) <= MAX_TOKENS
    assert (ids[0], ids[-1]) == (101, 102)


@pytest.mark.parametrize(
    "words", [("word",), ("漢字", "a"), ("x" * 3000, "y"), ("naïve", "été", "Ⅷ")]
)
def test_the_beginning_of_a_text_decides(words: tuple[str, ...]) -> None:
    rng = random.Random(1)
    text = "".join(rng.choice(words) + rng.choice([" ", "\n", "  ", "\u3000"]) for _ in range(1500))
    model = MiniLM()
    (prepared,) = Runner(model).prepare([Payload(json.dumps(text).encode())])
    assert isinstance(prepared, Prepared)
    assert prepared.tensors["input_ids"].tolist() == model._tokenizer.encode(text).ids


def test_refuses_the_empty_text_by_path() -> None:
    (refused,) = Runner(MiniLM()).prepare([Payload(b'""')])
    assert isinstance(refused, InvalidInput)
    assert refused.problems == (("$", "expected `str` of length >= 1"),)
