"""Bad input: the exact status, code and index of each kind, and the service unharmed by it."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest

from tests.stack.http.bad_inputs import BAD, BATCH, JSON, SINGLE, bomb, png
from tests.support.goldens import cases
from tests.support.stack import Stack


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


def test_costly_input_costs_no_worker(client: httpx.Client, stack: Stack) -> None:
    """One word of 15 MB kept a tokenizer busy for longer than a call may take."""
    packages = ("minilm-preprocessor", "digits-preprocessor")
    before = {package: stack.workers(package) for package in packages}
    memory = {each: each.memory_info().rss for each in before["digits-preprocessor"]}
    for name in ("one long word", "many large images"):
        path, body, *_ = BAD[name]
        for _ in range(3):
            client.post(f"/{path}", content=body, headers=JSON)
    assert {package: stack.workers(package) for package in packages} == before
    assert all(each.memory_info().rss < size + (64 << 20) for each, size in memory.items())


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
