"""What each endpoint answers when all is well."""

from __future__ import annotations

import base64
import re
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.support.goldens import PREPROCESSORS, TOLERANCE, Case, cases
from tests.support.stack import Stack

ALL = [case for model in PREPROCESSORS for case in cases(model)]


@pytest.mark.parametrize("case", ALL, ids=lambda case: f"{case.model}-{case.golden.name}")
def test_golden_case_through_single(client: httpx.Client, case: Case) -> None:
    answer = client.post(f"/{case.model}_single_predict", json=case.single)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert case.wrong(body.pop("output"), body["model_version"]) is None
    assert re.fullmatch(r"[a-z]+-preprocessor==\d+\.\d+\.\d+", body["preprocessor"])
    assert body["model"] == case.model
    described = client.get(f"/models/{case.model}").json()
    assert body["release"] in described["traffic"]
    assert body["model_version"] == described["releases"][body["release"]]["model_version"]
    assert answer.headers["X-Release"] == body["release"]
    stages = re.findall(r"(\w+);dur=[0-9.]+", answer.headers["Server-Timing"])
    assert stages == ["queue", "preprocess", "infer", "postprocess"]


@pytest.mark.parametrize("model", PREPROCESSORS)
def test_golden_cases_through_batch(client: httpx.Client, model: str) -> None:
    plain = [case for case in cases(model) if not case.golden.parameters]
    inputs = [case.golden.input for case in plain]
    answer = client.post(f"/{model}_batch_predict", json={"inputs": inputs})
    outputs, version = answer.json()["outputs"], answer.json()["model_version"]
    assert len(outputs) == len(plain)
    assert [case.wrong(output, version) for case, output in zip(plain, outputs, strict=True)] == [
        None for _ in plain
    ]


def test_raw_and_multipart_images_answer_as_json_does(client: httpx.Client) -> None:
    golden = cases("digits")
    images = [base64.b64decode(case.golden.input["image"]) for case in golden]
    types = ["image/png" if image.startswith(b"\x89PNG") else "image/jpeg" for image in images]
    for case, image, kind in zip(golden, images, types, strict=True):
        headers = {"Content-Type": kind}
        raw = client.post("/digits_single_predict", content=image, headers=headers)
        assert case.wrong(raw.json()["output"]) is None
    files = [("inputs", ("x", image, kind)) for image, kind in zip(images, types, strict=True)]
    outputs = client.post("/digits_batch_predict", files=files).json()["outputs"]
    assert [case.wrong(out) for case, out in zip(golden, outputs, strict=True)] == [None] * len(
        golden
    )


def test_top_k_parameter(client: httpx.Client) -> None:
    body = {"input": "Der schnelle braune Fuchs springt über den faulen Hund."}
    default, five = (
        client.post("/langid_single_predict", json=asked, headers={"X-Release": "2"}).json()[
            "output"
        ]["labels"]
        for asked in (body, body | {"parameters": {"top_k": 5}})
    )
    assert (len(default), len(five)) == (3, 5)
    assert default[0]["label"] == "de"
    assert [label["label"] for label in five[:3]] == [label["label"] for label in default]


def test_models_tell_how_to_ask(client: httpx.Client) -> None:
    listed = client.get("/models").json()["models"]
    assert [item["model"] for item in listed] == sorted(PREPROCESSORS)
    for item in listed:
        described = client.get(f"/models/{item['model']}").json()
        assert described["traffic"] == described["declared_traffic"]
        releases = described["releases"].values()
        assert {release["state"] for release in releases} == {"ready"}
        assert all(release["input_schema"] for release in releases)
        for example in [example for release in releases for example in release["examples"]]:
            request = {name: example[name] for name in ("input", "parameters") if name in example}
            assert client.post(item["single"], json=request).status_code == 200
    assert client.get("/models/nothing").json()["code"] == "unknown_model"


def test_health(client: httpx.Client) -> None:
    assert client.get("/livez").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready", "problems": {}}


def test_metrics_show_every_stage(client: httpx.Client) -> None:
    client.post("/tumor_single_predict", json=cases("tumor")[0].single)
    text = client.get("/metrics").text
    for stage in ("queue", "preprocess", "infer", "postprocess"):
        labels = f'model="tumor",release="1",stage="{stage}"'
        count = re.search(rf"gateway_stage_seconds_count\{{{labels}\}} ([0-9.]+)", text)
        assert count, stage
        assert float(count[1]) > 0
    assert 'gateway_release_ready{model="minilm",release="1"} 1.0' in text
    assert re.search(
        r'gateway_requests_total\{endpoint="single",model="tumor",status="200"\}', text
    )


def test_metric_labels_stay_bounded(client: httpx.Client) -> None:
    for index in range(20):
        client.post(f"/made-up-{index}_single_predict", json={"input": "x"})
        client.get(f"/made/up/{index}")
    assert "made" not in client.get("/metrics").text


def test_request_id_is_echoed_and_logged(client: httpx.Client, stack: Stack) -> None:
    answer = client.get("/models", headers={"X-Request-Id": "trace-me.1"})
    assert answer.headers["X-Request-Id"] == "trace-me.1"
    lines = [line for line in stack.log.read_text().splitlines() if "trace-me.1" in line]
    assert len(lines) == 1
    assert '"status":200' in lines[0]


@pytest.mark.alone
def test_a_single_does_not_wait_for_a_whole_batch(client: httpx.Client) -> None:
    batch = {"inputs": ["words that make this a long text " * 30] * 300}
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(client.post, "/minilm_batch_predict", json=batch)
        time.sleep(0.5)
        assert not pending.done()
        for _ in range(3):
            single = client.post("/minilm_single_predict", json={"input": "short"})
            assert single.status_code == 200
        assert not pending.done(), "the singles must have overtaken the batch"
        assert len(pending.result().json()["outputs"]) == 300


def test_probes_may_use_head(client: httpx.Client) -> None:
    for path in ("/livez", "/readyz", "/models", "/metrics"):
        answer = client.head(path)
        assert (answer.status_code, answer.content) == (200, b"")


def test_singles_and_batches_agree_under_concurrency(client: httpx.Client) -> None:
    texts = [f"sentence number {i} " + "and more words " * (i % 13) for i in range(60)]
    batch = client.post("/minilm_batch_predict", json={"inputs": texts}).json()["outputs"]
    with ThreadPoolExecutor(16) as pool:
        posts = pool.map(lambda t: client.post("/minilm_single_predict", json={"input": t}), texts)
        singles = [answer.json()["output"] for answer in posts]
    for single, row in zip(singles, batch, strict=True):
        assert single["embedding"] == pytest.approx(row["embedding"], abs=TOLERANCE)
