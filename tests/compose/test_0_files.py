"""What Compose makes of the override files; nothing is started."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.support.stack import ROOT


def services(*files: str) -> dict[str, Any]:
    given = [part for file in ("docker-compose.yml", *files) for part in ("-f", file)]
    command = ["docker", "compose", "--profile", "*", *given, "config", "--format", "json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)["services"]
    return found


@pytest.mark.parametrize("name", ["triton", "triton-2"])
def test_with_a_gpu_the_official_container_is_never_built(name: str) -> None:
    triton = services("docker-compose.gpu.yml")[name]
    assert triton["image"] == "nvcr.io/nvidia/tritonserver:24.10-py3"
    assert "build" not in triton
    (device,) = triton["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])


def test_every_build_that_needs_it_gets_the_ca(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILD_CA", "/etc/ssl/certs/ca-certificates.crt")
    built = {
        name: "secrets" in each["build"]
        for name, each in services("docker-compose.ca.yml").items()
        if "build" in each
    }
    assert all(built.values()), built
    assert len(built) == 6


def test_without_a_registry_prometheus_is_built_and_grafana_is_left_out() -> None:
    found = services("docker-compose.no-registry.yml")
    assert found["prometheus"]["build"]["target"] == "prometheus"
    assert found["grafana"]["profiles"] == ["not-without-a-registry"]
