"""The minilm preprocessor keeps the contract, and truncates as its README says."""

import json

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


def test_refuses_the_empty_text_by_path() -> None:
    (refused,) = Runner(MiniLM()).prepare([Payload(b'""')])
    assert isinstance(refused, InvalidInput)
    assert refused.problems == (("$", "expected `str` of length >= 1"),)
