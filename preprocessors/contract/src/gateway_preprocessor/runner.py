"""Runs a preprocessor on raw payloads: decode → preprocess → (model) → postprocess → encode.

The one place that both the gateway's workers and the conformance kit go through. It isolates
failures: what is wrong with one payload never touches another of the same call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
from numpy.typing import NDArray

from gateway_preprocessor.errors import ContractViolation, InvalidInput
from gateway_preprocessor.explain import explain
from gateway_preprocessor.preprocessor import Prepared, Preprocessor, Row

JSON = "application/json"
T = TypeVar("T")


class Payload(NamedTuple):
    """One instance as it arrived: JSON text, or a raw body of one of the `media_types`.

    `parameters` is the JSON text of the request's parameters; empty means the defaults.
    """

    content: bytes
    media_type: str = JSON
    parameters: bytes = b""


class Runner:
    """A preprocessor with its decoders built once. Thread-safe, as the preprocessor is."""

    def __init__(self, preprocessor: Preprocessor[Any, Any, Any]) -> None:
        self.preprocessor = preprocessor
        self._input = msgspec.json.Decoder(preprocessor.input_type)
        self._parameters = msgspec.json.Decoder(preprocessor.parameters_type)
        self._defaults = preprocessor.parameters_type()
        self._encode = msgspec.json.Encoder().encode

    def prepare(self, payloads: Sequence[Payload]) -> list[Prepared | Exception]:
        """Decode and preprocess; `result[i]` answers `payloads[i]`.

        An entry is InvalidInput where the payload is wrong and another exception where the
        preprocessor failed on it.
        """
        decoded = [_attempt(self._decode, payload) for payload in payloads]
        good = [item for item in decoded if not isinstance(item, Exception)]
        prepared = iter(_isolated(self._preprocess, good))
        return [item if isinstance(item, Exception) else next(prepared) for item in decoded]

    def finish(
        self, outputs: Mapping[str, NDArray[Any]], contexts: Sequence[Any]
    ) -> list[bytes | Exception]:
        """Postprocess a call's outputs, (rows, …) each; every row's result comes as JSON text.

        An entry is an exception where the preprocessor failed on that row.
        """
        rows = [
            ({name: array[index] for name, array in outputs.items()}, context)
            for index, context in enumerate(contexts)
        ]
        return _isolated(self._postprocess, rows)

    def _decode(self, payload: Payload) -> tuple[Any, Any]:
        parameters = self._defaults
        if payload.parameters:
            parameters = _decoded(self._parameters, payload.parameters, "parameters")
        if payload.media_type == JSON:
            return _decoded(self._input, payload.content, "$"), parameters
        return self.preprocessor.from_bytes(payload.content, payload.media_type), parameters

    def _preprocess(self, decoded: list[tuple[Any, Any]]) -> list[Prepared]:
        instances, parameters = zip(*decoded, strict=True)
        prepared = list(self.preprocessor.preprocess(instances, parameters))
        for item in prepared:
            self._check(item)
        return prepared

    def _check(self, item: Prepared) -> None:
        specs = self.preprocessor.tensors
        if len(item.tensors) != len(specs):
            raise ContractViolation(f"preprocess returned tensors {sorted(item.tensors)}")
        for spec in specs:
            array = item.tensors.get(spec.name)
            if array is None:
                raise ContractViolation(f"preprocess returned no tensor {spec.name!r}")
            if mismatch := spec.mismatch(array):
                raise ContractViolation(f"preprocess returned {mismatch}")

    def _postprocess(self, finished: list[tuple[Row, Any]]) -> list[bytes]:
        rows, contexts = zip(*finished, strict=True)
        return [self._encode(output) for output in self.preprocessor.postprocess(rows, contexts)]


def _decoded(decoder: msgspec.json.Decoder[Any], content: bytes, root: str) -> Any:
    """Decode `content`; raises InvalidInput that names every problem found in it."""
    try:
        return decoder.decode(content)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidInput.of(explain(error, content, decoder.type, root)) from None


def _attempt(call: Callable[[Payload], T], payload: Payload) -> T | Exception:
    try:
        return call(payload)
    except BaseException as error:  # noqa: BLE001 - becomes this payload's own result
        return _ordinary(error)


def _isolated(call: Callable[[list[Any]], Sequence[T]], items: list[Any]) -> list[T | Exception]:
    """Apply `call` to all items at once; if it fails, to each alone, so that only the bad fail."""
    if not items:
        return []
    try:
        results: list[T | Exception] = list(call(items))
    except BaseException as error:  # noqa: BLE001 - becomes the result of the item that caused it
        if len(items) == 1:
            return [_ordinary(error)]
        return [result for item in items for result in _isolated(call, [item])]
    if len(results) != len(items):
        return [ContractViolation(f"{len(results)} results for {len(items)} instances")] * len(
            items
        )
    return results


def _ordinary(error: BaseException) -> Exception:
    """Keep what would end a thread (a panic in a Rust extension, an exit) from doing so."""
    return error if isinstance(error, Exception) else RuntimeError(repr(error))
