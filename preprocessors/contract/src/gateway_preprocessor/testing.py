"""The conformance kit: `check(MyPreprocessor)` is a package's whole contract test.

Raises AssertionError that says which rule broke; returns what it checked, for the curious.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from gateway_preprocessor import goldens as golden_cases
from gateway_preprocessor.errors import InvalidInput
from gateway_preprocessor.preprocessor import Prepared, Preprocessor
from gateway_preprocessor.runner import Payload, Runner
from gateway_preprocessor.specs import TensorSpec

#: What clients send by mistake or malice; each is either accepted or refused as InvalidInput.
HOSTILE = (
    *b"null true false 0 -1 1e308 1e999 123456789012345678901234567890 [] {} [[]] [null]".split(),
    *(b'""', b'" "', b'"\\u0000"', b'"\\ud800"', b'"\xff\xfe"', b"NaN", b"", b"{", b'{"a":}'),
    *(b'{"text":1}', b'{"image":"!"}', b'{"image":""}', b'{"image":"aGVsbG8="}', b'{"":null}'),
    *(b"[" * 10_000 + b"]" * 10_000, b'"' + b"x" * 100_000 + b'"', '"é😀\u202e漢"'.encode()),
)
THREADS = 8


def check(preprocessor_type: type[Preprocessor[Any, Any, Any]]) -> dict[str, int]:
    """Prove that a preprocessor keeps the contract.

    Golden tensors reproduce; examples work; tensors match their specs; a batch equals its
    singles; equal results from many threads; hostile input raises only InvalidInput; results
    match the declared output type; contexts survive MessagePack.
    """
    runner = Runner(preprocessor_type())
    goldens = golden_cases.load(preprocessor_type)
    assert goldens, "goldens.json holds no case"
    examples = [
        Payload(msgspec.json.encode(item.input), parameters=msgspec.json.encode(item.parameters))
        for item in preprocessor_type.examples
    ]
    payloads = [golden.payload for golden in goldens] + examples
    prepared = [_prepared(runner, payload) for payload in payloads]

    for golden, item in zip(goldens, prepared, strict=False):
        difference = golden_cases.tensor_difference(golden, item.tensors)
        assert difference is None, f"golden {golden.name!r}: {difference}"
    _check_batch(runner, payloads, prepared)
    _check_threads(runner, payloads, prepared)
    _check_hostile(runner, payloads[0], prepared[0])
    _check_postprocess(runner, prepared)
    _check_golden_rows(runner, goldens, prepared)
    return {"goldens": len(goldens), "examples": len(examples), "hostile": len(HOSTILE)}


def _prepared(runner: Runner, payload: Payload) -> Prepared:
    (item,) = runner.prepare([payload])
    assert isinstance(item, Prepared), f"{payload.content[:200]!r} was refused: {item!r}"
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(item.context))
    assert again == item.context, f"context {item.context!r} does not survive MessagePack"
    return item


def _check_batch(runner: Runner, payloads: Sequence[Payload], singles: Sequence[Prepared]) -> None:
    order = np.random.default_rng(7).permutation(len(payloads))
    batch = runner.prepare([payloads[i] for i in order])
    for position, index in enumerate(order):
        _assert_same(
            batch[position], singles[index], f"batch row {position} differs from its single"
        )


def _check_threads(
    runner: Runner, payloads: Sequence[Payload], singles: Sequence[Prepared]
) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        for batch in pool.map(lambda _: runner.prepare(payloads), range(THREADS * 4)):
            for item, single in zip(batch, singles, strict=True):
                _assert_same(item, single, "a thread saw other tensors")


def _check_hostile(runner: Runner, good: Payload, expected: Prepared) -> None:
    payloads = [Payload(content) for content in HOSTILE]
    payloads += [Payload(good.content, parameters=content) for content in HOSTILE if content]
    for media_type in runner.preprocessor.media_types:
        payloads += [Payload(content, media_type) for content in HOSTILE]
    for payload in payloads:
        (alone,) = runner.prepare([payload])
        assert isinstance(alone, (Prepared, InvalidInput)), f"{payload!r:.200} raised {alone!r}"
    *_, neighbour = runner.prepare([*payloads, good])
    _assert_same(neighbour, expected, "a bad neighbour changed a good instance")


def _check_postprocess(runner: Runner, prepared: Sequence[Prepared]) -> None:
    random = np.random.default_rng(7)
    contexts = [item.context for item in prepared]
    outputs = {
        spec.name: _synthetic(spec, len(contexts), random) for spec in runner.preprocessor.outputs
    }
    results = runner.finish(outputs, contexts)
    for index, (context, result) in enumerate(zip(contexts, results, strict=True)):
        assert isinstance(result, bytes), f"postprocess raised {result!r}"
        msgspec.json.decode(result, type=runner.preprocessor.output_type)
        row = {name: array[index : index + 1] for name, array in outputs.items()}
        alone = runner.finish(row, [context])
        assert alone == [result], "a batch's result differs from its single"


def _check_golden_rows(
    runner: Runner, goldens: Sequence[golden_cases.Golden], prepared: Sequence[Prepared]
) -> None:
    for golden, item in zip(goldens, prepared, strict=False):
        if golden.row is None:
            continue
        outputs = {name: tensor.array()[None] for name, tensor in golden.row.items()}
        (result,) = runner.finish(outputs, [item.context])
        assert isinstance(result, bytes), f"golden {golden.name!r}: postprocess raised {result!r}"
        actual = msgspec.json.decode(result)
        difference = golden_cases.difference(golden.output, actual, golden.output_tolerance)
        assert difference is None, f"golden {golden.name!r}: {difference}"


def _synthetic(spec: TensorSpec, rows: int, random: np.random.Generator) -> NDArray[Any]:
    shape = [rows, *(3 if size == -1 else size for size in spec.shape)]
    return random.random(shape).astype(spec.dtype)


def _assert_same(actual: Prepared | Exception, expected: Prepared, message: str) -> None:
    assert isinstance(actual, Prepared), f"{message}: {actual!r}"
    assert actual.context == expected.context, message
    for name, array in expected.tensors.items():
        np.testing.assert_array_equal(actual.tensors[name], array, err_msg=message)
