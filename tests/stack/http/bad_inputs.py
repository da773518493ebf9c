"""Bad requests: name → path, body, status, code, and the places that are named."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from typing import Any

from PIL import Image

from tests.support.goldens import cases

JSON = {"Content-Type": "application/json"}
LIMIT_BYTES = 16 << 20
LIMIT_ROWS = 1024
TUMOR = cases("tumor")[0].golden.input
SINGLE, BATCH = "single_predict", "batch_predict"


def png(width: int, height: int) -> bytes:
    """A PNG of noise, so that it compresses badly and can be cut in the middle."""
    noise = Image.effect_noise((width, height), 80)
    noise.save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()


def plain(width: int, height: int) -> bytes:
    """A PNG of one colour: few bytes, however large it is."""
    Image.new("L", (width, height)).save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()


def bomb() -> bytes:
    """A PNG whose header promises 50,000 × 50,000 pixels."""
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    chunk = (
        struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    )
    data = zlib.compress(b"\0" * 1000)
    body = (
        struct.pack(">I", len(data))
        + b"IDAT"
        + data
        + struct.pack(">I", zlib.crc32(b"IDAT" + data))
    )
    return b"\x89PNG\r\n\x1a\n" + chunk + body


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def envelope(key: str, value: Any) -> bytes:
    return json.dumps({key: value}).encode()


def tumor(**changes: Any) -> dict[str, Any]:
    record = {**TUMOR, **{name.replace("_", " "): value for name, value in changes.items()}}
    return {name: value for name, value in record.items() if value is not ...}


#: name → path, body, status, code, [(index, path), …]
BAD: dict[str, tuple[str, bytes, int, str, list[tuple[int | None, str]]]] = {
    "not JSON": (f"minilm_{SINGLE}", b"hello", 400, "not_json", []),
    "empty body": (f"minilm_{SINGLE}", b"", 400, "not_json", []),
    "half a JSON text": (f"minilm_{SINGLE}", b'{"input": "x', 400, "not_json", []),
    "trailing garbage": (f"minilm_{SINGLE}", b'{"input": "x"} y', 400, "not_json", []),
    "top level is a list": (f"minilm_{SINGLE}", b'["x"]', 400, "bad_envelope", []),
    "top level is a text": (f"minilm_{BATCH}", b'"x"', 400, "bad_envelope", []),
    "no input": (f"minilm_{SINGLE}", b"{}", 400, "bad_envelope", []),
    "extra member": (f"minilm_{SINGLE}", b'{"input": "x", "y": 1}', 400, "bad_envelope", []),
    "inputs to single": (f"minilm_{SINGLE}", b'{"inputs": ["x"]}', 400, "bad_envelope", []),
    "input to batch": (f"minilm_{BATCH}", b'{"input": "x"}', 400, "bad_envelope", []),
    "inputs is no list": (f"minilm_{BATCH}", b'{"inputs": "x"}', 400, "bad_envelope", []),
    "empty batch": (f"minilm_{BATCH}", b'{"inputs": []}', 400, "bad_envelope", []),
    "wrong type": (f"minilm_{SINGLE}", b'{"input": 3}', 422, "invalid_input", [(0, "$")]),
    "null": (f"minilm_{SINGLE}", b'{"input": null}', 422, "invalid_input", [(0, "$")]),
    "empty string": (f"minilm_{SINGLE}", b'{"input": ""}', 422, "invalid_input", [(0, "$")]),
    "one bad of many": (
        f"minilm_{BATCH}",
        b'{"inputs": ["a", "b", 7, "c", ""]}',
        *(422, "invalid_input", [(2, "$"), (4, "$")]),
    ),
    "missing field": (
        f"tumor_{SINGLE}",
        envelope("input", tumor(mean_radius=...)),
        *(422, "invalid_input", [(0, "$['mean radius']")]),
    ),
    "extra field": (
        f"tumor_{BATCH}",
        envelope("inputs", [TUMOR, tumor(shoe_size=44)]),
        *(422, "invalid_input", [(1, "$['shoe size']")]),
    ),
    "wrong type of a field": (
        f"tumor_{BATCH}",
        envelope("inputs", [TUMOR, TUMOR, tumor(mean_area="large", mean_texture=None)]),
        *(422, "invalid_input", [(2, "$['mean area']"), (2, "$['mean texture']")]),
    ),
    "NaN": (
        f"tumor_{BATCH}",
        envelope("inputs", [TUMOR, tumor(mean_area=float("nan"))]),
        *(400, "not_json", [(1, "$['mean area']")]),
    ),
    "Infinity": (
        f"tumor_{SINGLE}",
        envelope("input", tumor(mean_area=float("inf"))),
        *(400, "not_json", [(0, "$['mean area']")]),
    ),
    "a number beyond float64": (
        f"tumor_{SINGLE}",
        envelope("input", TUMOR).replace(str(TUMOR["mean radius"]).encode(), b"1e999", 1),
        *(422, "invalid_input", [(0, "$['mean radius']")]),
    ),
    "a number beyond float32": (
        f"tumor_{SINGLE}",
        envelope("input", tumor(mean_radius=1e300)),
        *(422, "invalid_input", [(0, "$['mean radius']")]),
    ),
    "a number of 400 digits": (
        f"minilm_{SINGLE}",
        b'{"input": 1' + b"0" * 400 + b"}",
        *(422, "invalid_input", [(0, "$")]),
    ),
    "nested 10,000 deep": (
        f"minilm_{SINGLE}",
        b'{"input": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        *(400, "not_json", []),
    ),
    "invalid UTF-8": (f"minilm_{SINGLE}", b'{"input": "\xff\xfe"}', 400, "not_json", []),
    "lone surrogate": (
        f"minilm_{BATCH}",
        b'{"inputs": ["fine", "\\ud800"]}',
        *(422, "invalid_input", [(1, "$")]),
    ),
    "bad parameter": (
        f"langid_{BATCH}",
        b'{"inputs": ["one text", "another"], "parameters": {"top_k": 0}}',
        *(422, "invalid_input", [(None, "parameters.top_k")]),
    ),
    "unknown parameter": (
        f"minilm_{SINGLE}",
        b'{"input": "x", "parameters": {"top_k": 1}}',
        *(422, "invalid_input", [(None, "parameters.top_k")]),
    ),
    "no base64": (
        f"digits_{SINGLE}",
        envelope("input", {"image": "!"}),
        *(422, "invalid_input", [(0, "$.image")]),
    ),
    "no image": (
        f"digits_{SINGLE}",
        envelope("input", {"image": b64(b"hello")}),
        *(422, "invalid_input", [(0, "$.image")]),
    ),
    "truncated image": (
        f"digits_{BATCH}",
        envelope("inputs", [{"image": b64(png(64, 64)[:900])}]),
        *(422, "invalid_input", [(0, "$.image")]),
    ),
    "1-pixel image": (
        f"digits_{SINGLE}",
        envelope("input", {"image": b64(png(1, 1))}),
        *(422, "invalid_input", [(0, "$.image")]),
    ),
    "image bomb": (
        f"digits_{SINGLE}",
        envelope("input", {"image": b64(bomb())}),
        *(422, "invalid_input", [(0, "$.image")]),
    ),
    "one long word": (
        f"minilm_{BATCH}",
        envelope("inputs", ["short", "a" * (15 << 20)]),
        *(422, "invalid_input", [(1, "$")]),
    ),
    "many large images": (
        f"digits_{BATCH}",
        envelope("inputs", [{"image": b64(plain(4000, 4000))}] * 64),
        *(413, "batch_too_large", []),
    ),
    "batch over the limit": (
        f"minilm_{BATCH}",
        envelope("inputs", ["x"] * (LIMIT_ROWS + 1)),
        *(413, "batch_too_large", []),
    ),
    "body over the limit": (
        f"minilm_{SINGLE}",
        b'{"input": "' + b"x" * LIMIT_BYTES + b'"}',
        *(413, "body_too_large", []),
    ),
    "unknown model": (f"nothing_{SINGLE}", b'{"input": "x"}', 404, "unknown_model", []),
    "unknown path": ("minilm", b'{"input": "x"}', 404, "unknown_route", []),
}
