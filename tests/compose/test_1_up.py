"""`docker compose up -d --wait` on a clean machine: what runs, as whom, and what it answers."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from ipaddress import ip_address, ip_network
from pathlib import Path

import httpx
import pytest

from tests.support import goldens
from tests.support.compose import Compose, docker
from tests.support.goldens import PREPROCESSORS

TRITON_PORTS = (8000, 8001, 8002)


def test_all_containers_are_healthy(compose: Compose) -> None:
    states = {}
    for container in compose.inspect():
        state, service = (
            container["State"],
            container["Config"]["Labels"]["com.docker.compose.service"],
        )
        states[service] = state.get("Health", {}).get("Status") or f"exited {state['ExitCode']}"
    assert states.pop("seed") == "exited 0"
    assert states.keys() >= {"triton", "gateway", "lb", "prometheus"}
    assert set(states.values()) == {"healthy"}


def test_all_containers_are_confined(compose: Compose) -> None:
    for container in compose.inspect():
        name, host = container["Name"], container["HostConfig"]
        assert container["Config"]["User"] not in {"", "0", "root"}, name
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert "no-new-privileges:true" in host["SecurityOpt"], name
        if container["State"]["Running"]:
            assert host["NanoCpus"], name
            assert host["Memory"], name
            status = docker("exec", container["Id"], "cat", "/proc/1/status")
            (uids,) = (line.split()[1:] for line in status.splitlines() if line.startswith("Uid:"))
            assert "0" not in uids, name


@pytest.mark.parametrize("model", PREPROCESSORS)
def test_single_and_batch_predictions_equal_the_goldens(client: httpx.Client, model: str) -> None:
    cases = goldens.cases(model)
    for case in cases:
        answer = client.post(f"/{model}_single_predict", json=case.single)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert case.wrong(body["output"], body["model_version"]) is None
    plain = [case for case in cases if not case.golden.parameters]
    answer = client.post(
        f"/{model}_batch_predict", json={"inputs": [case.golden.input for case in plain]}
    )
    assert answer.status_code == 200, answer.text
    body = answer.json()
    for case, output in zip(plain, body["outputs"], strict=True):
        assert case.wrong(output, body["model_version"]) is None


def test_tritons_ports_are_not_published(compose: Compose) -> None:
    (triton,) = compose.inspect("triton")
    assert not any((triton["NetworkSettings"]["Ports"] or {}).values())
    own = socket.gethostbyname_ex(socket.gethostname())[2]
    for address in {"127.0.0.1", *own}:
        for port in TRITON_PORTS:
            with socket.socket() as probe:
                probe.settimeout(2)
                assert probe.connect_ex((address, port)), f"{address}:{port} answers"


def test_the_host_has_no_address_on_tritons_network(compose: Compose) -> None:
    """So that no program of the host can open the container's address, published or not."""
    (triton,) = compose.inspect("triton")
    (network,) = triton["NetworkSettings"]["Networks"].values()
    own = ip_network(f"{network['IPAddress']}/{network['IPPrefixLen']}", strict=False)
    routes = [line.split() for line in Path("/proc/net/route").read_text().splitlines()[1:]]
    found = [ip_address(int(route[1], 16).to_bytes(4, "little")) for route in routes]
    assert found
    assert not [address for address in found if address in own]


def test_tritons_ports_are_unreachable_from_the_edge(compose: Compose, edge: str) -> None:
    """By name; by address there is nothing to ask, as the host itself has no way there."""
    (triton,) = compose.inspect("triton")
    assert [name.endswith("_back") for name in triton["NetworkSettings"]["Networks"]] == [True]
    image = compose.inspect("lb")[0]["Image"]
    probe = (
        "for place in triton/8000 triton/8001 triton/8002 gateway/8080; do "
        "timeout 2 bash -c 'exec 3<>/dev/tcp/'$place 2>/dev/null && echo $place; done; true"
    )
    found = docker("run", "--rm", "--network", edge, image, "bash", "-c", probe)
    assert found.split() == ["gateway/8080"]  # the probe sees what there is to see, and no Triton


def test_triton_cannot_reach_out(compose: Compose) -> None:
    """Its network leads nowhere: not even to what stands on the other network of this host."""
    address = compose.address("lb")
    script = (
        f"timeout 3 bash -c 'exec 3<>/dev/tcp/{address}/8080' 2>/dev/null && echo reached; true"
    )
    assert compose.execute("gateway", "bash", "-c", script).split() == ["reached"]
    assert compose.execute("triton", "bash", "-c", script).split() == []


def test_the_gateways_output_is_json_alone(compose: Compose) -> None:
    lines = docker("logs", compose.containers("gateway")[0]).splitlines()
    events = [json.loads(line) for line in lines]
    assert any("ready at http://127.0.0.1:8080" in event.get("text", "") for event in events)
    # Probes are many, and say nothing that is worth an error.
    assert not [event for event in events if event.get("path") == "/readyz"]


def test_a_second_up_changes_nothing(compose: Compose) -> None:
    mine = "echo '# a note of the operator' >> /models/digits/releases.toml"
    compose.execute("gateway", "sh", "-c", mine)
    before, containers = _digest(compose), set(compose.containers())
    compose.up()
    assert _digest(compose) == before
    assert set(compose.containers()) == containers


def test_no_image_but_tritons_has_torch_and_none_has_a_compiler(compose: Compose) -> None:
    for container in compose.inspect():
        service = container["Config"]["Labels"]["com.docker.compose.service"]
        unwanted = ["-name", "cc1", "-o", "-name", "pip"]
        unwanted += [] if service.startswith("triton") else ["-o", "-name", "torch"]
        find = ("run", "--rm", "--user", "0", "--entrypoint", "find", container["Image"])
        assert not docker(*find, "/", "-xdev", *unwanted).split(), service


def test_without_torch_triton_is_slim_and_the_seed_fits_it() -> None:
    build = [
        "build",
        "--quiet",
        "--file",
        "deploy/docker/triton.Dockerfile",
        "--build-arg",
        "TORCH=no",
    ]
    if bundle := os.environ.get("BUILD_CA"):
        build += ["--secret", f"id=ca,src={bundle}"]
    seed = docker(*build, "--target", "models", ".").strip()
    assert docker("run", "--rm", seed, "ls", "/seed").split() == ["digits", "minilm", "tumor"]
    triton = docker(*build, "--target", "triton", ".").strip()
    assert _beside_base(triton) < 500e6


def test_the_gateways_image_is_as_small_as_promised(compose: Compose) -> None:
    (gateway,) = compose.inspect("gateway")
    assert _beside_base(gateway["Image"]) < 700e6


def _beside_base(image: str) -> int:
    """Return the bytes that an image adds to what it was built from."""
    inspect = ("image", "inspect", "--format", "{{.Size}}")
    return int(docker(*inspect, image)) - int(docker(*inspect, "debian:bookworm-slim"))


def _digest(compose: Compose) -> str:
    listed = compose.execute(
        "gateway", "sh", "-c", "cd /models && find . -type f -exec sha256sum {} + | sort"
    )
    return hashlib.sha256(listed.encode()).hexdigest()
