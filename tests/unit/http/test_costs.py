"""What an instance may cost is bounded before anything is decoded."""

from __future__ import annotations

import base64
import io
import json
import random
from typing import Any

import msgspec
import pytest
from gateway_preprocessor import Payload
from PIL import Image

from gateway.errors import BatchTooLarge, InvalidInstances
from gateway.http.costs import Costs
from gateway.http.images import UnreadableHeader, pixels
from gateway.settings import Settings

COSTS = Costs(1000, 10_000, 25_000)
PNG, JPEG = "image/png", "image/jpeg"
FORMATS = ["PNG", "JPEG", "GIF", "BMP", "WEBP"]


def image(kind: str = "PNG", width: int = 100, height: int = 100, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, kind, **options)
    return file.getvalue()


def instance(value: Any) -> Payload:
    return Payload(json.dumps(value).encode())


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.mark.parametrize("kind", FORMATS)
def test_the_header_tells_the_pixels(kind: str) -> None:
    assert pixels(image(kind, 123, 45)) == 123 * 45


@pytest.mark.parametrize("options", [{"lossless": True}, {"exif": b"Exif\0\0" + b"x" * 99}])
def test_other_headers_of_webp(options: dict[str, Any]) -> None:
    assert pixels(image("WEBP", 123, 45, **options)) == 123 * 45


@pytest.mark.parametrize("options", [{"progressive": True}, {"comment": b"\xff\xc0" * 500}])
def test_other_headers_of_jpeg(options: dict[str, Any]) -> None:
    assert pixels(image("JPEG", 123, 45, **options)) == 123 * 45


@pytest.mark.parametrize("kind", FORMATS)
def test_a_header_that_is_broken_off_is_the_preprocessor_s_to_refuse(kind: str) -> None:
    content = image(kind, 123, 45)
    for length in range(30):
        assert pixels(content[:length]) in {None, 123 * 45}


@pytest.mark.parametrize("kind", FORMATS)
def test_hostile_headers_end(kind: str) -> None:
    rng, content = random.Random(3), image(kind, 123, 45)
    for _ in range(2000):
        spoilt = bytearray(content)
        for _ in range(rng.randrange(1, 6)):
            spoilt[rng.randrange(min(len(spoilt), 64))] = rng.randrange(256)
        pixels(bytes(spoilt))


def test_a_header_behind_thousands_of_segments_is_not_looked_for() -> None:
    content = image("JPEG", 123, 45)
    filled = content[:2] + b"\xff\xe1\x00\x02" * 5000 + content[2:]
    assert Image.open(io.BytesIO(filled)).size == (123, 45)  # a decoder would find it
    with pytest.raises(UnreadableHeader):
        pixels(filled)
    with pytest.raises(InvalidInstances) as error:
        COSTS.require([Payload(filled, JPEG)], (JPEG,))
    assert "segments" in error.value.errors[0].reason


def test_a_long_instance_is_named() -> None:
    with pytest.raises(InvalidInstances) as error:
        COSTS.require([instance("short"), instance("a" * 2000)], ())
    (found,) = error.value.errors
    assert (found.index, found.path) == (1, "$")
    assert found.reason == "is 2002 bytes of JSON; at most 1000 are taken"


@pytest.mark.parametrize(
    ("payload", "path"),
    [
        (Payload(image(width=101), PNG), "$"),
        (instance({"image": text(image(width=101))}), "$.image"),
        (instance({"a": ["data:image/png;base64," + text(image(width=101))]}), "$.a[0]"),
        (Payload(b'"\\u0069' + text(image(width=101))[1:].encode() + b'"'), "$"),
        (instance(text(image("JPEG", width=101))), "$"),
    ],
)
def test_an_image_with_many_pixels_is_named(payload: Payload, path: str) -> None:
    with pytest.raises(InvalidInstances) as error:
        COSTS.require([Payload(image(), PNG), payload], (PNG, JPEG))
    (found,) = error.value.errors
    assert (found.index, found.path) == (1, path)
    assert found.reason == "has 10100 pixels; at most 10000 are taken"


def test_pixels_count_over_the_batch() -> None:
    fitting = [Payload(image(), PNG), instance({"image": text(image())})]
    COSTS.require(fitting, (PNG,))
    with pytest.raises(BatchTooLarge, match="30000 pixels together; at most 25000"):
        COSTS.require([*fitting, fitting[1]], (PNG,))


def test_images_in_json_do_not_count_as_text() -> None:
    noise = random.Random(1).randbytes(30 * 30 * 3)
    file = io.BytesIO()
    Image.frombytes("RGB", (30, 30), noise).save(file, "PNG")
    assert len(text(file.getvalue())) > COSTS.json_bytes
    COSTS.require([instance({"image": text(file.getvalue())})], (PNG,))
    with pytest.raises(InvalidInstances):
        COSTS.require([instance({"image": text(file.getvalue()), "more": "a" * 2000})], (PNG,))


def test_what_is_no_json_is_the_preprocessor_s_to_refuse() -> None:
    COSTS.require([Payload(b"["), Payload(b'"iVBORw0KGgo!"'), Payload(b'"/9\xc3\xa9"')], (PNG,))


def test_the_defaults_take_three_hundred_ordinary_rows() -> None:
    costs = Costs.of(Settings())
    costs.require([instance("many words " * 1000)] * 300, ())
    costs.require([Payload(image("JPEG", 640, 480), JPEG)] * 300, (JPEG,))
    with pytest.raises(InvalidInstances):
        costs.require([Payload(msgspec.json.encode("a" * (15 << 20)))], ())
    with pytest.raises(BatchTooLarge):
        costs.require([Payload(image("JPEG", 4000, 4000), JPEG)] * 64, (JPEG,))
