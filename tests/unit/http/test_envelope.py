"""Envelopes: instances are cut out as they came, and what is wrong with a body is told."""

from __future__ import annotations

import tracemalloc

import pytest

from gateway.errors import (
    BadEnvelope,
    BatchTooLarge,
    GatewayError,
    InputError,
    InvalidInstances,
    NotJson,
    UnsupportedMediaType,
)
from gateway.http import envelope

JSON, PNG = "application/json", "image/png"


def test_an_instance_is_cut_out_undecoded() -> None:
    body = b'{"parameters": {"top": 3}, "input": {"b": 1.10, "a": [ 1 ]}}'
    (payload,) = envelope.single(JSON, body, (), 1)
    assert payload == (b'{"b": 1.10, "a": [ 1 ]}', JSON, b'{"top": 3}')
    many = envelope.batch("Application/JSON; charset=utf-8", b'{"inputs": [1, "x" ,null]}', (), 3)
    assert [payload.content for payload in many] == [b"1", b'"x"', b"null"]
    assert {payload.parameters for payload in many} == {b""}


def test_rows_are_counted_up_to_the_limit() -> None:
    body = b'{"inputs": [1, 2, 3]}'
    assert len(envelope.batch(JSON, body, (), 3)) == 3
    with pytest.raises(BatchTooLarge, match="More than 2 instances; at most 2"):
        envelope.batch(JSON, body, (), 2)


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs": [' + b"1," * 2_000_000 + b"1]}",
        b'{"inputs": [' + b"[]," * 2_000_000 + b"NaN]}",
        b'{"parameters": {"a": [1, 2]}, "inputs": [' + b'{"a": "],"},' * 500_000 + b"1]}",
    ],
    ids=["numbers", "not JSON in the end", "objects"],
)
def test_millions_of_instances_are_refused_before_they_are_made(body: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises((BatchTooLarge, NotJson)):
            envelope.batch(JSON, body, (), 1024)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < len(body) + (8 << 20)  # its text, once, and little else


def test_many_commas_are_not_many_instances() -> None:
    rows = b",".join([b'{"a": [1, 2, 3], "b": "x, y"}'] * 1024)
    assert len(envelope.batch(JSON, b'{"inputs": [' + rows + b"]}", (), 1024)) == 1024
    with pytest.raises(BatchTooLarge):
        envelope.batch(JSON, b'{"inputs": [' + rows + b",1]}", (), 1024)
    with pytest.raises(BadEnvelope, match="inputs"):
        envelope.batch(JSON, b'{"inputs": "' + b"," * 2000 + b'"}', (), 1024)


def test_a_form_of_very_many_parts_is_refused_at_once() -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="inputs"; filename="a"\r\n\r\n\r\n'
    body = part * 99_000 + b"--x--\r\n"
    with pytest.raises(BatchTooLarge, match="at most 1024"):
        envelope.batch("multipart/form-data; boundary=x", body, (PNG,), 1024)


@pytest.mark.parametrize(
    ("body", "kind", "told"),
    [
        (b"", NotJson, "not JSON"),
        (b'{"input": 1', NotJson, "not JSON"),
        (b'{"input": 1} {"input": 2}', NotJson, "not JSON"),
        (b'{"input": "\xff"}', NotJson, "not UTF-8 text: invalid start byte at byte 11"),
        (b'{"input": NaN}', NotJson, "NaN and Infinity are not JSON numbers"),
        (b'{"input": ' + b"[" * 100_000, NotJson, "nested too deeply"),
        (b"[1]", BadEnvelope, "not the envelope"),
        (b"{}", BadEnvelope, "`input`"),
        (b'{"input": 1, "inputs": [1]}', BadEnvelope, "`inputs`"),
    ],
)
def test_a_body_that_is_no_single(body: bytes, kind: type[GatewayError], told: str) -> None:
    with pytest.raises(kind) as caught:
        envelope.single(JSON, body, (), 1)
    assert type(caught.value) is kind
    assert told in caught.value.detail


def test_what_json_cannot_hold_is_placed() -> None:
    with pytest.raises(NotJson) as numbers:
        envelope.batch(JSON, b'{"inputs": [1, {"a": [NaN]}, -Infinity]}', (), 9)
    assert [(error.index, error.path) for error in numbers.value.errors] == [
        (1, "$.a[0]"),
        (2, "$"),
    ]
    with pytest.raises(InvalidInstances) as texts:  # JSON, but a lone surrogate is no text
        envelope.batch(JSON, b'{"inputs": ["fine", "\\ud800"], "parameters": "\\udfff"}', (), 9)
    assert [(error.index, error.path) for error in texts.value.errors] == [
        (1, "$"),
        (None, "parameters"),
    ]


@pytest.mark.parametrize("media_types", [(), (PNG,)])
def test_other_media_types_only_where_the_preprocessor_takes_them(
    media_types: tuple[str, ...],
) -> None:
    if media_types:
        assert envelope.single("image/PNG", b"\x89PNG", media_types, 1) == [(b"\x89PNG", PNG, b"")]
    else:
        with pytest.raises(UnsupportedMediaType, match="send application/json"):
            envelope.single(PNG, b"\x89PNG", media_types, 1)
    with pytest.raises(UnsupportedMediaType, match="'text/plain' is not accepted"):
        envelope.single("text/plain", b"x", media_types, 1)


def form(*parts: tuple[str, bytes]) -> bytes:
    """A multipart body with the boundary B."""
    whole = b"".join(b"--B\r\n%s\r\n\r\n%s\r\n" % (h.encode(), content) for h, content in parts)
    return whole + b"--B--\r\n"


def file(name: str = "inputs", kind: str = PNG) -> str:
    head = f'Content-Disposition: form-data; name="{name}"; filename="a"'
    return f"{head}\r\nContent-Type: {kind}"


FORM = "multipart/form-data; boundary=B"
PARAMETERS = 'Content-Disposition: form-data; name="parameters"'


def test_files_come_in_order_with_the_forms_parameters() -> None:
    body = form((file(), b"one"), (PARAMETERS, b'{"top": 1}'), (file(), b"two"))
    assert envelope.batch(FORM, body, (PNG,), 2) == [
        (b"one", PNG, b'{"top": 1}'),
        (b"two", PNG, b'{"top": 1}'),
    ]
    with pytest.raises(BatchTooLarge):
        envelope.batch(FORM, body, (PNG,), 1)
    with pytest.raises(UnsupportedMediaType):  # to a preprocessor that takes JSON alone
        envelope.batch(FORM, body, (), 2)


@pytest.mark.parametrize(
    ("content_type", "body", "told"),
    [
        ("multipart/form-data", form((file(), b"1")), "no boundary"),
        (FORM, b"no form at all", "malformed"),
        (FORM, form((PARAMETERS, b"{}")), "No file"),
        (FORM, form((file("image"), b"1")), "Unknown part 'image'"),
        (FORM, form(('Content-Disposition: form-data; name="inputs"', b"1")), "no file name"),
    ],
)
def test_forms_that_are_refused(content_type: str, body: bytes, told: str) -> None:
    with pytest.raises(BadEnvelope, match=told):
        envelope.batch(content_type, body, (PNG,), 9)


def test_a_file_of_another_type_is_named_by_its_place() -> None:
    body = form((file(), b"1"), (file(kind="image/gif"), b"2"))
    with pytest.raises(UnsupportedMediaType) as caught:
        envelope.batch(FORM, body, (PNG,), 9)
    assert caught.value.errors == (InputError(1, "$", "has the media type 'image/gif'"),)
