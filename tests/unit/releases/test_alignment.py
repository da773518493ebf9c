"""Alignment: each difference is a sentence that names its place, and few are enough."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from gateway_preprocessor import Description, Prepared, TensorSpec
from gateway_preprocessor.goldens import Golden, Tensor
from tritonclient.utils import np_to_triton_dtype

from gateway.releases import alignment
from gateway.releases.alignment import MOST, Misaligned, Served

IDS, SCORES = TensorSpec("ids", "int64", (-1,)), TensorSpec("scores", "float32", (3,))
DESCRIBED = Description((IDS,), (SCORES,), (), {}, {}, {}, [])
INPUTS: Served = {"ids": ("INT64", (-1,))}
OUTPUTS: Served = {"scores": ("FP32", (3,))}


def golden(name: str, **more: Any) -> Golden:
    tensors = {"ids": Tensor("int64", [2], [1, 2])}
    return Golden(name, "by hand", "text", tensors, {"score": 0.5}, **more)


@pytest.mark.parametrize(
    ("inputs", "outputs", "rows", "told"),
    [
        (INPUTS, OUTPUTS, 8, []),
        ({"ids": ("INT64", (16,))}, OUTPUTS, 8, []),  # any length is declared
        (INPUTS, {"scores": ("FP32", (-1,))}, 8, []),  # any width is served
        (INPUTS, OUTPUTS | {"more": ("FP32", (1,))}, 8, []),  # an output need not be read
        (INPUTS, OUTPUTS, 0, ["the model does not batch (max_batch_size is 0)"]),
        (
            {"ids": ("INT32", (-1,))},
            OUTPUTS,
            8,
            ["input 'ids': int64 is declared, the model has INT32"],
        ),
        (
            INPUTS,
            {"scores": ("FP32", (4,))},
            8,
            ["output 'scores': [3] is declared, the model has [4]"],
        ),
        (
            INPUTS,
            {"scores": ("FP32", (1, 3))},
            8,
            ["output 'scores': [3] is declared, the model has [1, 3]"],
        ),
        (
            {"tokens": ("INT64", (-1,))},
            OUTPUTS,
            8,
            [
                "the model has no input 'ids', only ['tokens']",
                "the model's input 'tokens' is not sent",
            ],
        ),
    ],
)
def test_tensors_as_declared_and_as_served(
    inputs: Served, outputs: Served, rows: int, told: list[str]
) -> None:
    assert alignment.specs(DESCRIBED, inputs, outputs, rows) == told


def test_every_dtype_of_the_contract_has_a_name_in_triton() -> None:
    for name, served in alignment.TRITON_DTYPES.items():
        spec = TensorSpec("x", name, (1,))
        described = Description((spec,), (), (), {}, {}, {}, [])
        assert served == np_to_triton_dtype(np.dtype(name))
        assert alignment.specs(described, {"x": (served, (1,))}, {}, 1) == []


def test_tensors_of_golden_cases() -> None:
    right = Prepared({"ids": np.array([1, 2])})
    other = Prepared({"ids": np.array([2, 1])})
    goldens = [golden("fine"), golden("swapped"), golden("dead")]
    swapped, dead = alignment.tensors(goldens, [right, other, RuntimeError("the worker died")])
    assert swapped == (
        "golden case 'swapped': ids[0]: 2 instead of 1 (± 0.0);"
        " 2 numbers differ, by up to 1 (ids[0]: 2 instead of 1)"
    )
    assert dead == "golden case 'dead': preprocess failed: the worker died"


@pytest.mark.parametrize(
    ("own", "of_release", "aligned"),
    [(0.1, None, True), (0.01, None, False), (0.01, 0.1, True), (0.1, 0.0, False)],
)
def test_a_release_may_state_its_own_tolerance(
    own: float, of_release: float | None, aligned: bool
) -> None:
    answer = msgspec.json.encode({"score": 0.55})
    found = alignment.results([golden("a", output_tolerance=own)], [answer], of_release)
    assert (found == []) is aligned
    assert aligned or found[0].startswith("golden case 'a': $.score: 0.55 instead of 0.5")


def test_a_result_that_could_not_be_made_is_told() -> None:
    found = alignment.results([golden("a")], [RuntimeError("no such label")], None)
    assert found == ["golden case 'a': postprocess failed: no such label"]


def test_answers_are_not_left_out() -> None:
    with pytest.raises(ValueError, match="shorter"):
        alignment.results([golden("a"), golden("b")], [b'{"score": 0.5}'], None)


def test_a_message_names_the_first_few_differences_and_counts_the_rest() -> None:
    alignment.require([])
    found = [f"difference {index}" for index in range(MOST + 3)]
    with pytest.raises(Misaligned) as caught:
        alignment.require(iter(found), "replica h:1: ")
    assert str(caught.value) == f"replica h:1: {'; '.join(found[:MOST])} (and 3 more)"
