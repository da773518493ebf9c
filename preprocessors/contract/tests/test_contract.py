"""The contract refuses what it should, isolates failures, and its kit catches offenders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
import pytest
from gateway_preprocessor import (
    ContractViolation,
    Example,
    InvalidInput,
    NoParameters,
    Payload,
    Prepared,
    Preprocessor,
    Row,
    Runner,
    TensorSpec,
    describe,
    goldens,
    testing,
)


class Shape(msgspec.Struct, forbid_unknown_fields=True, rename={"wide": "how wide"}):
    """A record with an awkward field name."""

    wide: float
    colour: bytes
    count: Annotated[int, msgspec.Meta(ge=1)] = 1


class Codes(Preprocessor[str, NoParameters, dict[str, float]]):
    """A whole preprocessor: the README's example."""

    input_type = Annotated[str, msgspec.Meta(min_length=1)]
    output_type = dict[str, float]
    tensors = (TensorSpec("codes", "int64", (-1,)),)
    outputs = (TensorSpec("score", "float32", (1,)),)
    examples = (Example("hello"),)

    def preprocess(self, instances: Sequence[str], parameters: Sequence[Any]) -> list[Prepared]:
        if "bug" in instances:
            raise ZeroDivisionError("a bug")
        if "bad" in instances:
            raise InvalidInput("$", "is bad")
        return [
            Prepared({"codes": np.array([ord(c) for c in text], np.int64)}, len(text))
            for text in instances
        ]

    def postprocess(self, rows: Sequence[Row], contexts: Sequence[Any]) -> list[dict[str, float]]:
        return [{"score": float(row["score"][0])} for row in rows]


def record(content: bytes) -> list[tuple[str, str]]:
    """Decode a Shape through the runner and return the problems found."""

    class Shapes(Codes):
        input_type = Shape

    (result,) = Runner(Shapes()).prepare([Payload(content)])
    assert isinstance(result, InvalidInput), result
    return [tuple(problem) for problem in result.problems]


def test_every_problem_of_a_record_is_named() -> None:
    assert record(b'{"colour": "!", "count": 0, "size": 1}') == [
        ("$['how wide']", "is missing"),
        ("$.colour", "invalid base64 encoded string"),
        ("$.count", "expected `int` >= 1"),
        ("$.size", "is not a known field"),
    ]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"how wide": 1e999, "size": 1}', ("$['how wide']", "is not a finite number")),
        (b'{"how wide": true, "colour": ""}', ("$['how wide']", "expected `float`, got `bool`")),
        (b'{"how wide": 1, "colour": 2}', ("$.colour", "expected `bytes`, got `int`")),
        (b"[]", ("$", "expected `object`, got `array`")),
        (b'"\\udc00"', ("$", "holds a lone surrogate, which is not Unicode text")),
        (b'{"how wide": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", ("$", "is nested too deeply")),
    ],
)
def test_one_problem(content: bytes, problem: tuple[str, str]) -> None:
    assert problem in record(content)


def test_a_failure_stays_with_its_instance() -> None:
    texts = [b'"one"', b'"bad"', b'"two"', b"7", b'"bug"', b'"three"']
    results = Runner(Codes()).prepare([Payload(text) for text in texts])
    kinds = [type(result).__name__ for result in results]
    assert kinds == [
        *("Prepared", "InvalidInput", "Prepared"),
        *("InvalidInput", "ZeroDivisionError", "Prepared"),
    ]


def test_a_failing_row_stays_alone() -> None:
    class Picky(Codes):
        def postprocess(self, rows: Sequence[Row], contexts: Sequence[Any]) -> list[Any]:
            return [{"score": 1 / row["score"][0].item()} for row in rows]

    outputs = {"score": np.array([[1], [0], [2]], np.float32)}
    results = Runner(Picky()).finish(outputs, [None] * 3)
    assert results[0] == b'{"score":1.0}'
    assert isinstance(results[1], ZeroDivisionError)
    assert results[2] == b'{"score":0.5}'


def test_wrong_tensors_and_counts_are_violations() -> None:
    class Wrong(Codes):
        def preprocess(self, instances: Sequence[str], parameters: Sequence[Any]) -> list[Prepared]:
            return {
                "none": [],
                "dtype": [Prepared({"codes": np.zeros(2, np.int32)})],
                "rank": [Prepared({"codes": np.zeros((2, 2), np.int64)})],
                "name": [Prepared({"code": np.zeros(2, np.int64)})],
                "more": [Prepared({"codes": np.zeros(2, np.int64), "x": np.zeros(1)})],
                "list": [Prepared({"codes": [1]})],
            }[instances[0]]

    for text in ("none", "dtype", "rank", "name", "more", "list"):
        (result,) = Runner(Wrong()).prepare([Payload(f'"{text}"'.encode())])
        assert isinstance(result, ContractViolation), text


@pytest.mark.parametrize(
    "changes",
    [
        {"tensors": ()},
        {"tensors": (("codes", "int64"),)},
        {"outputs": (TensorSpec("a", "int8", ()), TensorSpec("a", "int8", ()))},
        {"examples": ()},
        {"media_types": ("image/png",)},
        {"from_bytes": classmethod(lambda cls, content, media_type: "x")},
    ],
)
def test_a_wrong_declaration_fails_when_the_class_is_made(changes: dict[str, Any]) -> None:
    with pytest.raises(ContractViolation):
        type("Wrong", (Codes,), changes)


def test_a_missing_declaration_or_method_fails_at_start() -> None:
    with pytest.raises(ContractViolation, match="output_type"):

        class Undeclared(Preprocessor[str, NoParameters, str]):
            input_type = str

            def preprocess(self, instances: Any, parameters: Any) -> list[Prepared]:
                return []

            def postprocess(self, rows: Any, contexts: Any) -> list[str]:
                return []

    class Misspelt(Preprocessor[str, NoParameters, str]):
        def preproces(self, instances: Any, parameters: Any) -> list[Prepared]:
            return []

    with pytest.raises(TypeError, match="preprocess"):
        Misspelt()  # type: ignore[abstract]


@pytest.mark.parametrize(
    ("dtype", "shape", "pad"),
    [("string", (1,), 0), ("int64", (0,), 0), ("int64", (-2,), 0), ("uint8", (-1,), -1)],
)
def test_a_spec_that_cannot_be(dtype: str, shape: tuple[int, ...], pad: int) -> None:
    with pytest.raises(ContractViolation):
        TensorSpec("x", dtype, shape, pad)


@pytest.mark.parametrize("ending", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_would_end_a_thread_becomes_that_instance_s_failure(
    ending: type[BaseException],
) -> None:
    class Exiting(Codes):
        def preprocess(self, instances: Sequence[str], parameters: Sequence[Any]) -> list[Prepared]:
            if "exit" in instances:
                raise ending
            return super().preprocess(instances, parameters)

    good, bad = Runner(Exiting()).prepare([Payload(b'"fine"'), Payload(b'"exit"')])
    assert isinstance(good, Prepared)
    assert isinstance(bad, RuntimeError)


def test_description_is_plain_data() -> None:
    described = describe(Codes)
    assert msgspec.json.decode(msgspec.json.encode(described), type=type(described)) == described
    assert described.input_schema == {"type": "string", "minLength": 1}


GOLDEN = goldens.Golden(
    name="hello",
    reference="by hand",
    input="hi",
    tensors={"codes": goldens.Tensor("int64", [2], [104, 105])},
    row={"score": goldens.Tensor("float32", [1], [0.5])},
    output={"score": 0.5},
)


@pytest.fixture
def _with_golden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goldens, "load", lambda _: [GOLDEN])


@pytest.mark.usefixtures("_with_golden")
class TestKit:
    def test_accepts_a_good_one(self) -> None:
        assert testing.check(Codes)["goldens"] == 1

    @pytest.mark.parametrize(
        ("method", "body", "message"),
        [
            ("preprocess", "tensor", "values differ"),
            ("preprocess", "context", "MessagePack"),
            ("preprocess", "order", "differs from its single"),
            ("preprocess", "state", "a thread saw other tensors|differs from its single"),
            ("preprocess", "raise", "raised"),
            ("postprocess", "type", "float"),
            ("postprocess", "golden", "instead of 0.5"),
        ],
    )
    def test_catches(self, method: str, body: str, message: str) -> None:
        bad = type("Bad", (Codes,), {method: _offence(body)})
        with pytest.raises((AssertionError, msgspec.ValidationError), match=message):
            testing.check(bad)


def _offence(name: str) -> Any:
    good = Codes.preprocess
    calls: list[int] = []

    def preprocess(self: Codes, instances: Any, parameters: Any) -> list[Prepared]:
        prepared = good(self, instances, parameters)
        calls.append(1)
        if name == "tensor":
            return [Prepared({"codes": item.tensors["codes"] + 1}) for item in prepared]
        if name == "context":
            return [Prepared(item.tensors, {1, 2}) for item in prepared]
        if name == "order":
            return prepared[::-1] if len({len(text) for text in instances}) > 1 else prepared
        if name == "state" and len(calls) > 2:
            return [Prepared({"codes": item.tensors["codes"][:1]}, 0) for item in prepared]
        if name == "raise" and " " in instances:
            raise KeyError("x")
        return prepared

    def postprocess(self: Codes, rows: Any, contexts: Any) -> list[Any]:
        return [{"score": "high"} if name == "type" else {"score": 0.7} for _ in rows]

    return preprocess if name in {"tensor", "context", "order", "state", "raise"} else postprocess


def test_load_without_goldens() -> None:
    with pytest.raises(FileNotFoundError):
        goldens.load(Codes)


@pytest.mark.parametrize(
    ("actual", "told"),
    [
        ({"a": [1.0, {"b": "x"}]}, None),
        ({"a": [1.0 + 1e-7, {"b": "x"}]}, None),
        ({"a": [1.1, {"b": "x"}]}, "$.a[0]"),
        ({"a": [1.0, {"b": "y"}]}, "$.a[1].b"),
        ({"a": [1.0]}, "$.a: 1 items"),
        ({"b": 1}, "$: fields"),
        ({"a": [True, {"b": "x"}]}, "$.a[0]"),
    ],
)
def test_difference(actual: Any, told: str | None) -> None:
    found = goldens.difference({"a": [1.0, {"b": "x"}]}, actual, 1e-6)
    assert found is None if told is None else found and found.startswith(told)
