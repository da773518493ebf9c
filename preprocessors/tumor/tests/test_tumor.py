"""The tumor preprocessor: order of the features, and every way a record can be wrong."""

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from gateway_preprocessor import InvalidInput, Payload, Prepared, Runner, testing
from tumor_preprocessor import FEATURES, LABELS, TumorPreprocessor

RECORD: dict[str, Any] = dict(TumorPreprocessor.examples[0].input)


@pytest.fixture(scope="module")
def runner() -> Runner:
    return Runner(TumorPreprocessor())


def prepare(runner: Runner, record: Any) -> Prepared | Exception:
    content = record if isinstance(record, bytes) else json.dumps(record).encode()
    (result,) = runner.prepare([Payload(content)])
    return result


def problems(runner: Runner, record: Any) -> dict[str, str]:
    refused = prepare(runner, record)
    assert isinstance(refused, InvalidInput), refused
    return dict(refused.problems)


def test_contract() -> None:
    assert testing.check(TumorPreprocessor)["goldens"] >= 8


def test_features_are_the_data_sets() -> None:
    assert len(FEATURES) == 30
    assert [FEATURES[i] for i in (0, 7, 10, 19, 20, 29)] == [
        "mean radius",
        "mean concave points",
        "radius error",
        "fractal dimension error",
        "worst radius",
        "worst fractal dimension",
    ]


def test_order_of_members_does_not_matter(runner: Runner) -> None:
    item = prepare(runner, dict(reversed(RECORD.items())))
    assert isinstance(item, Prepared)
    expected = np.array([RECORD[name] for name in FEATURES], np.float32)
    np.testing.assert_array_equal(item.tensors["features"], expected)


def test_integers_and_the_bounds_are_numbers(runner: Runner) -> None:
    item = prepare(runner, RECORD | {"mean area": 1001, "mean concavity": 0, "worst area": 1e6})
    assert isinstance(item, Prepared)
    assert item.tensors["features"][[3, 6, 23]].tolist() == [1001, 0, 1e6]


def test_every_missing_and_unknown_field_is_named(runner: Runner) -> None:
    record = {name: value for name, value in RECORD.items() if name not in FEATURES[3:5]}
    assert problems(runner, record | {"mean_area": 1.0, "id": 7}) == {
        "$['mean area']": "is missing",
        "$['mean smoothness']": "is missing",
        "$.mean_area": "is not a known field",
        "$.id": "is not a known field",
    }


def test_an_empty_record_names_all(runner: Runner) -> None:
    assert problems(runner, {}) == {f"$['{name}']": "is missing" for name in FEATURES}


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_non_finite_values_are_named(runner: Runner, text: str) -> None:
    content = json.dumps(RECORD | {"mean area": 0.125, "worst texture": 0.125})
    found = problems(runner, content.replace("0.125", text).encode())
    assert found == dict.fromkeys(
        ("$['mean area']", "$['worst texture']"), "is not a finite number"
    )


@pytest.mark.parametrize(
    "value",
    [-1, -1e-9, 1e300, 1e38, 1000001, 10**30, "17.99", "", None, True, [1.0], {"value": 1.0}],
)
def test_values_that_are_no_measurement_are_named(runner: Runner, value: Any) -> None:
    assert list(problems(runner, RECORD | {"radius error": value})) == ["$['radius error']"]


@pytest.mark.parametrize("record", [[], list(RECORD.values()), "17.99", 1, None, True, b"", b"{"])
def test_what_is_no_record_is_refused(runner: Runner, record: Any) -> None:
    assert list(problems(runner, record)) == ["$"]


def test_the_label_comes_with_its_own_probability(runner: Runner) -> None:
    outputs = {"probabilities": np.array([(0.75, 0.25), (0.25, 0.75)], np.float32)}
    assert [json.loads(result) for result in runner.finish(outputs, [None, None])] == [
        {"label": "malignant", "probability": 0.75},
        {"label": "benign", "probability": 0.75},
    ]
    assert LABELS == ("malignant", "benign")


def test_the_schema_tells_names_and_bounds() -> None:
    _, components = msgspec.json.schema_components([TumorPreprocessor.input_type])
    schema = components["Measurements"]
    assert schema["required"] == list(FEATURES)
    assert schema["additionalProperties"] is False
    assert schema["properties"]["mean radius"] == {"type": "number", "minimum": 0, "maximum": 1e6}
