"""Model configurations: read as Triton reads them, and narrowed to the versions that are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.triton.configs import ConfigError, Configs

TEXT = """
# Comments are allowed.
name: "m"
platform: "onnxruntime_onnx"
max_batch_size: 8
version_policy { all { } }
parameters { key: "intra_op_thread_count" value { string_value: "1" } }
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "m").mkdir()
    return tmp_path / "m/config.pbtxt"


def test_exactly_the_named_versions_are_loaded(tmp_path: Path, path: Path) -> None:
    path.write_text(TEXT)
    config = json.loads(Configs(tmp_path).with_versions("m", {3, 1}) or "")
    # JSON of Protocol Buffers writes 64-bit numbers as text; "all" has given way.
    assert config["version_policy"] == {"specific": {"versions": ["1", "3"]}}
    assert config["max_batch_size"] == 8
    assert config["parameters"]["intra_op_thread_count"] == {"string_value": "1"}
    assert path.read_text() == TEXT


def test_versions_are_those_of_the_last_call(tmp_path: Path, path: Path) -> None:
    path.write_text(TEXT.replace("all { }", "specific { versions: [7] }"))
    config = json.loads(Configs(tmp_path).with_versions("m", {2}) or "")
    assert config["version_policy"]["specific"]["versions"] == ["2"]


def test_without_a_config_triton_generates_one(tmp_path: Path) -> None:
    assert Configs(tmp_path).with_versions("m", {1}) is None


@pytest.mark.parametrize("content", [b"max_batch_size: much", b"unheard_of: 1", b"name: \xff"])
def test_a_config_that_cannot_be_read_is_named(tmp_path: Path, path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"m/config\.pbtxt: "):
        Configs(tmp_path).with_versions("m", {1})
