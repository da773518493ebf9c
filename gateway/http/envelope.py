"""Reads a request's body into payloads: JSON envelopes, raw files, multipart forms.

Instances are cut out of the envelope undecoded; only the preprocessor decodes them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any, TypeVar

import msgspec
from gateway_preprocessor import JSON, Payload
from gateway_preprocessor.explain import unrepresentable
from tornado.httputil import (
    HTTPFile,
    HTTPInputError,
    ParseMultipartConfig,
    parse_multipart_form_data,
)

from gateway.errors import (
    MOST_ERRORS,
    BadEnvelope,
    BatchTooLarge,
    GatewayError,
    InputError,
    InvalidInstances,
    NotJson,
    UnsupportedMediaType,
)

T = TypeVar("T")
MULTIPART = "multipart/form-data"
NONE = msgspec.Raw(b"")
#: Parts of a multipart body beside its files.
OTHER_PARTS = 8
#: Longer bodies that are not JSON are not searched for the fault: that would take seconds.
EXPLAINED = 1 << 20
#: Larger bounds of rows are checked after decoding.
MOST_FIELDS = 8192


class Single(msgspec.Struct, forbid_unknown_fields=True):
    """`{"input": …}`."""

    input: msgspec.Raw
    parameters: msgspec.Raw = NONE


class Batch(msgspec.Struct, forbid_unknown_fields=True):
    """`{"inputs": […]}`."""

    inputs: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1)]
    parameters: msgspec.Raw = NONE


class Unread(msgspec.Struct, forbid_unknown_fields=True):
    """`{"inputs": …}`, not looked into."""

    inputs: msgspec.Raw
    parameters: msgspec.Raw = NONE


_SINGLE = msgspec.json.Decoder(Single)
_BATCH = msgspec.json.Decoder(Batch)
_UNREAD = msgspec.json.Decoder(Unread)


def single(
    content_type: str, body: bytes, media_types: Sequence[str], _max_rows: int
) -> list[Payload]:
    """Read the body of a single request: one payload. Raises GatewayError."""
    kind = _media_type(content_type)
    if kind in media_types:
        return [Payload(body, kind)]
    if kind != JSON:
        raise _unsupported(kind, (JSON, *media_types))
    envelope = _decode(_SINGLE, body)
    return [Payload(bytes(envelope.input), parameters=bytes(envelope.parameters))]


def batch(
    content_type: str, body: bytes, media_types: Sequence[str], max_rows: int
) -> list[Payload]:
    """Read the body of a batch request: one payload per instance. Raises GatewayError."""
    kind = _media_type(content_type)
    if kind == MULTIPART and media_types:
        return _files(content_type, body, media_types, max_rows)
    if kind != JSON:
        raise _unsupported(kind, (JSON, MULTIPART) if media_types else (JSON,))
    if max_rows <= min(body.count(b","), MOST_FIELDS):
        _require_few(body, max_rows)
    envelope = _decode(_BATCH, body)
    require_rows(len(envelope.inputs), max_rows)
    parameters = bytes(envelope.parameters)
    return [Payload(bytes(item), parameters=parameters) for item in envelope.inputs]


def document(content_type: str, body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Read a body that is one JSON document. Raises GatewayError."""
    if (kind := _media_type(content_type)) != JSON:
        raise _unsupported(kind, (JSON,))
    decoded: T = _decode(decoder, body)
    return decoded


def require_rows(rows: int, max_rows: int) -> None:
    """Raise BatchTooLarge before any work per row."""
    if rows > max_rows:
        raise _too_many(str(rows), max_rows)


def _too_many(rows: str, max_rows: int) -> BatchTooLarge:
    return BatchTooLarge(f"{rows} instances; at most {max_rows} fit in one batch.")


def _require_few(body: bytes, max_rows: int) -> None:
    """Raise BatchTooLarge before an object is made for each of millions of instances.

    msgspec reads the rest of a list that is too long, but stops at an item too many for a struct.
    """
    inputs = _decode(_UNREAD, body).inputs
    if bytes(memoryview(inputs)[:1]) == b"[":
        try:
            _at_most(max_rows).decode(inputs)
        except msgspec.ValidationError:
            raise _too_many(f"More than {max_rows}", max_rows) from None


@cache
def _at_most(rows: int) -> msgspec.json.Decoder[Any]:
    fields = [(f"row{number}", msgspec.Raw, NONE) for number in range(rows)]
    kind = msgspec.defstruct("Rows", fields, array_like=True, forbid_unknown_fields=True)
    return msgspec.json.Decoder(kind)


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _unsupported(kind: str, accepted: Sequence[str]) -> UnsupportedMediaType:
    return UnsupportedMediaType(
        f"Content-Type {kind!r} is not accepted here; send {' or '.join(accepted)}."
    )


def _decode(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    try:
        body.decode()  # undecoded parts must be text, too
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise BadEnvelope(f"The body is JSON, but not the envelope: {str(error)[:200]}.") from None
    except UnicodeDecodeError as error:
        raise NotJson(
            f"The body is not UTF-8 text: {error.reason} at byte {error.start}."
        ) from None
    except RecursionError:
        raise NotJson("The body is nested too deeply.") from None
    except msgspec.DecodeError as error:
        raise _explained(error, body) from None


def _explained(error: msgspec.DecodeError, body: bytes) -> GatewayError:
    """Locate the fault in the body: which number is NaN, which text is not Unicode."""
    if len(body) > EXPLAINED:
        return NotJson(f"The body is not JSON: {error}.")
    try:
        value = json.loads(body)
    except json.JSONDecodeError as precise:
        return NotJson(f"The body is not JSON: {precise}.")
    except (ValueError, RecursionError):
        return NotJson(f"The body is not JSON: {error}.")
    found: list[InputError] = []
    if isinstance(value, dict):
        instances = value.get("inputs", [value.get("input")])
        for index, instance in enumerate(instances if isinstance(instances, list) else []):
            if len(found) < MOST_ERRORS:
                found += [InputError(index, *item) for item in unrepresentable(instance, "$")]
        parameters = unrepresentable(value.get("parameters"), "parameters")
        found = [*found, *(InputError(None, *item) for item in parameters)][:MOST_ERRORS]
    if found and _finite(value):  # JSON, but with text that is not Unicode
        return InvalidInstances(f"{found[0].path}: {found[0].reason}", errors=tuple(found))
    detail = f"The body is not JSON: {error}; NaN and Infinity are not JSON numbers."
    return NotJson(detail, errors=tuple(found))


def _finite(value: Any) -> bool:
    """Return whether all numbers are finite, as JSON requires."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


def _files(
    content_type: str, body: bytes, media_types: Sequence[str], max_rows: int
) -> list[Payload]:
    """Read the parts named `inputs`, in order; a part `parameters` holds JSON."""
    boundary = content_type.partition("boundary=")[2].partition(";")[0].strip()
    fields: dict[str, list[bytes]] = {}
    files: dict[str, list[HTTPFile]] = {}
    try:
        if not boundary:
            raise HTTPInputError("the Content-Type names no boundary")  # noqa: TRY301
        require_rows(body.count(b"--" + boundary.strip('"').encode()) - OTHER_PARTS, max_rows)
        parts = ParseMultipartConfig(max_parts=max_rows + OTHER_PARTS)
        parse_multipart_form_data(boundary.encode(), body, fields, files, config=parts)
    except (HTTPInputError, UnicodeDecodeError) as error:
        raise BadEnvelope(f"The multipart body is malformed: {error}.") from None
    (parameters,) = fields.pop("parameters", [b""])[-1:]
    inputs = files.pop("inputs", [])
    if "inputs" in fields:
        raise BadEnvelope("A part 'inputs' has no file name; each file needs one.")
    if unknown := sorted({*fields, *files}):
        raise BadEnvelope(
            f"Unknown part {unknown[0][:64]!r}: send each file as a part named 'inputs'."
        )
    if not inputs:
        raise BadEnvelope("No file: send each as a part named 'inputs', with a file name.")
    require_rows(len(inputs), max_rows)
    payloads = []
    for index, file in enumerate(inputs):
        if (kind := _media_type(file.content_type)) not in media_types:
            raise UnsupportedMediaType(
                f"Part {index} is {kind!r}; send {' or '.join(media_types)}.",
                errors=(InputError(index, "$", f"has the media type {kind!r}"),),
            )
        payloads.append(Payload(file.body, kind, parameters))
    return payloads
