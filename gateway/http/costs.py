"""Bounds what an instance may cost before any work on it begins, for every preprocessor.

Tokenizers need time, and image decoders memory, that follows from the length of a text or the
pixels of an image: a body that is small enough may still occupy a worker for a minute, or a
gigabyte. Lengths and image headers are read here; nothing is decoded to pixels.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
from gateway_preprocessor import JSON, Payload
from gateway_preprocessor.errors import member

from gateway.errors import MOST_ERRORS, BatchTooLarge, InputError, InvalidInstances
from gateway.http.images import UnreadableHeader, pixels
from gateway.settings import Settings

IMAGES = "image/"
#: How the base64 text of each format of `images.py` begins.
_BASE64_IMAGES = ("iVBORw0KGgo", "/9", "R0lGOD", "Qk", "UklGR")
#: Ends the head of a data URL (RFC 2397).
_DATA_URL = "base64,"


class Image(NamedTuple):
    """An image of one instance: where it is, and its encoded bytes."""

    path: str
    content: bytes


class Costs(NamedTuple):
    """The most bytes of JSON (without images) and pixels of one image, and pixels of one batch."""

    json_bytes: int
    image_pixels: int
    batch_pixels: int

    @classmethod
    def of(cls, settings: Settings) -> Costs:
        """Take the operator's bounds."""
        return cls(
            settings.max_instance_bytes, settings.max_image_pixels, settings.max_batch_pixels
        )

    def require(self, payloads: Sequence[Payload], media_types: Sequence[str]) -> None:
        """Raise InvalidInstances, naming each instance that costs too much, or BatchTooLarge."""
        takes_images = any(kind.startswith(IMAGES) for kind in media_types)
        problems, total = list[InputError](), 0
        for index, payload in enumerate(payloads):
            images = list(_images(payload)) if takes_images else []
            if payload.media_type == JSON and len(payload.content) > self.json_bytes:
                length = len(payload.content) - sum(4 * len(each.content) // 3 for each in images)
                if length > self.json_bytes:
                    reason = f"is {length} bytes of JSON; at most {self.json_bytes} are taken"
                    problems.append(InputError(index, "$", reason))
            for path, content in images:
                try:
                    size = pixels(content) or 0
                except UnreadableHeader as error:
                    problems.append(InputError(index, path, str(error)))
                    continue
                total += size
                if size > self.image_pixels:
                    reason = f"has {size} pixels; at most {self.image_pixels} are taken"
                    problems.append(InputError(index, path, reason))
        if problems:
            raise InvalidInstances(_detail(problems), errors=tuple(problems[:MOST_ERRORS]))
        if total > self.batch_pixels:
            raise BatchTooLarge(
                f"The images have {total} pixels together; at most {self.batch_pixels} fit in one"
                " batch."
            )


def _detail(errors: Sequence[InputError]) -> str:
    first = errors[0]
    more = f" ({len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"input {first.index}, {first.path}: {first.reason}{more}"


def _images(payload: Payload) -> Iterator[Image]:
    """Yield the images of one instance: the raw body, or those in its JSON as base64 text."""
    if payload.media_type.startswith(IMAGES):
        yield Image("$", payload.content)
        return
    if payload.media_type != JSON:
        return
    try:
        value = msgspec.json.decode(payload.content)
    except (msgspec.DecodeError, RecursionError):
        return  # the preprocessor says what is wrong
    for path, text in _texts(value):
        encoded = text.partition(_DATA_URL)[2] or text
        if encoded.startswith(_BASE64_IMAGES):
            try:
                yield Image(path, binascii.a2b_base64(encoded))
            except ValueError:  # broken off, or not ASCII
                continue  # as above


def _texts(value: Any) -> Iterator[tuple[str, str]]:
    waiting = [("$", value)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, str):
            yield path, value
        elif isinstance(value, dict):
            waiting += [(member(path, name), item) for name, item in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{path}[{index}]", item) for index, item in enumerate(value)]
