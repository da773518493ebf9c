"""Bad input: the exact status, code and index of each kind, and the service unharmed by it."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from typing import Any

import httpx
import pytest
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


def assert_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check the envelope that every error has, and return it."""
    assert (response.status_code, response.headers["Content-Type"]) == (
        status,
        "application/problem+json",
    ), response.text
    problem: dict[str, Any] = response.json()
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem.keys() >= {"type", "title", "detail", "request_id"}
    assert problem["request_id"] == response.headers["X-Request-Id"]
    for leak in ("Traceback", "site-packages", ".py"):
        assert leak not in response.text
    return problem


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named_exactly(client: httpx.Client, name: str) -> None:
    path, body, status, code, places = BAD[name]
    problem = assert_problem(client.post(f"/{path}", content=body, headers=JSON), status, code)
    named = sorted((str(e["index"]), e["path"]) for e in problem.get("errors", []))
    assert named == sorted((str(index), path) for index, path in places)
    assert all(error["reason"] for error in problem.get("errors", []))


@pytest.mark.parametrize("content", [b"hello", b"", png(64, 64)[:900], png(1, 1), bomb()])
def test_bad_raw_image(client: httpx.Client, content: bytes) -> None:
    headers = {"Content-Type": "image/png"}
    answer = client.post(f"/digits_{SINGLE}", content=content, headers=headers)
    problem = assert_problem(answer, 422, "invalid_input")
    assert [error["index"] for error in problem["errors"]] == [0]


def test_one_bad_file_of_many(client: httpx.Client) -> None:
    good = base64.b64decode(cases("digits")[0].golden.input["image"])
    files = [
        ("inputs", (f"{i}.png", body, "image/png")) for i, body in enumerate([good, b"", good])
    ]
    problem = assert_problem(client.post(f"/digits_{BATCH}", files=files), 422, "invalid_input")
    assert [error["index"] for error in problem["errors"]] == [1]


@pytest.mark.parametrize(
    ("content_type", "status", "code"),
    [
        ("multipart/form-data", 400, "bad_envelope"),
        ("multipart/form-data; boundary=x", 400, "bad_envelope"),
        ("text/plain", 415, "unsupported_media_type"),
    ],
)
def test_bad_multipart(client: httpx.Client, content_type: str, status: int, code: str) -> None:
    headers = {"Content-Type": content_type}
    assert_problem(client.post(f"/digits_{BATCH}", content=b"--y", headers=headers), status, code)


def test_multipart_with_an_unknown_part_or_type(client: httpx.Client) -> None:
    unknown = client.post(f"/digits_{BATCH}", files={"image": ("a.png", b"x", "image/png")})
    assert "'image'" in assert_problem(unknown, 400, "bad_envelope")["detail"]
    typed = client.post(f"/digits_{BATCH}", files={"inputs": ("a.gif", b"x", "image/gif")})
    problem = assert_problem(typed, 415, "unsupported_media_type")
    assert problem["errors"][0]["index"] == 0


@pytest.mark.parametrize("model", ["minilm", "tumor", "langid", "digits"])
def test_wrong_content_type(client: httpx.Client, model: str) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = client.post(f"/{model}_{SINGLE}", content=b'{"input": "x"}', headers=headers)
    assert "application/json" in assert_problem(answer, 415, "unsupported_media_type")["detail"]


def test_an_image_for_a_text_model(client: httpx.Client) -> None:
    headers = {"Content-Type": "image/png"}
    answer = client.post(f"/minilm_{SINGLE}", content=png(8, 8), headers=headers)
    assert_problem(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "BREW"])
def test_wrong_method(client: httpx.Client, method: str) -> None:
    answer = client.request(method, f"/minilm_{SINGLE}")
    assert_problem(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == "POST"


def test_wrong_method_elsewhere(client: httpx.Client) -> None:
    assert client.post("/models", content=b"{}").headers["Allow"] == "GET, HEAD"
    assert_problem(client.post("/nothing", content=b"{}"), 404, "unknown_route")
    assert client.get("/livez").status_code == 200


def test_a_path_that_is_no_text(client: httpx.Client) -> None:
    for path in ("/%ff_single_predict", "/models/%ff"):
        method = "POST" if "predict" in path else "GET"
        assert_problem(client.request(method, path), 404, "unknown_route")


def test_a_megabyte_of_nan_gets_a_short_answer(client: httpx.Client) -> None:
    body = b'{"inputs": [' + b"NaN," * 250_000 + b"NaN]}"
    answer = client.post(f"/tumor_{BATCH}", content=body, headers=JSON)
    problem = assert_problem(answer, 400, "not_json")
    assert len(problem["errors"]) == 100
    assert len(answer.content) < 20_000


@pytest.mark.parametrize("value", ["0", "-1", "soon", "1.5", "99999999", "1" * 5000])
def test_bad_deadline(client: httpx.Client, value: str) -> None:
    answer = client.post(
        f"/minilm_{SINGLE}", json={"input": "x"}, headers={"X-Request-Timeout-Ms": value}
    )
    assert_problem(answer, 400, "bad_header")


def test_deadline_passes(client: httpx.Client) -> None:
    answer = client.post(
        f"/minilm_{BATCH}",
        json={"inputs": ["word " * 200] * 64},
        headers={"X-Request-Timeout-Ms": "20"},
    )
    assert_problem(answer, 504, "deadline_exceeded")


def test_unknown_release(client: httpx.Client) -> None:
    answer = client.post(f"/minilm_{SINGLE}", json={"input": "x"}, headers={"X-Release": "99"})
    assert_problem(answer, 404, "unknown_release")


def test_hostile_request_id_is_not_echoed(client: httpx.Client) -> None:
    answer = client.get("/livez", headers={"X-Request-Id": "<script>" + "x" * 500})
    assert len(answer.headers["X-Request-Id"]) == 32


def test_text_of_100_kb_is_truncated_by_the_tokenizer(client: httpx.Client) -> None:
    text = "The gateway cuts nothing; the tokenizer does. " * 2200
    answers = [
        client.post(f"/minilm_{SINGLE}", json={"input": given}).json()["output"]["embedding"]
        for given in (text, text[:5000])
    ]
    assert len(text) > 100_000
    assert answers[0] == pytest.approx(answers[1], abs=1e-5)


def test_service_is_unharmed(client: httpx.Client) -> None:
    for path, body, *_ in BAD.values():
        client.post(f"/{path}", content=body, headers=JSON)
    for model in ("minilm", "langid", "digits", "tumor"):
        case = cases(model)[0]
        answer = client.post(f"/{model}_{SINGLE}", json=case.single)
        assert answer.status_code == 200
        body = answer.json()
        assert case.wrong(body["output"], body["model_version"]) is None
    assert client.get("/readyz").status_code == 200
