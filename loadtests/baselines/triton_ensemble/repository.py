"""Writes the Triton repository: three models for each one, tokenizer, ONNX, and their ensemble."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Annotated

import msgspec

from loadtests.baselines.catalogue import DIMENSIONS, MOST_TOKENS, Model, link

TOKENIZER = Path(__file__).with_name("tokenizer.py")
Count = Annotated[int, msgspec.Meta(ge=1)]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`settings.toml`, explained there."""

    instances: Count
    instances_of_many: Count
    many: Count
    tokenizers: Count
    length_step: Count
    most_rows: Count
    most_merged_rows: Count
    queue_delay_us: Annotated[int, msgspec.Meta(ge=0)]


TOKENIZER_CONFIG = Template("""\
name: "${name}_tokenizer"
backend: "python"
max_batch_size: $most_rows
input [ { name: "TEXT" data_type: TYPE_STRING dims: [ 1 ] } ]
output [
  { name: "input_ids" data_type: TYPE_INT64 dims: [ -1 ] },
  { name: "attention_mask" data_type: TYPE_INT64 dims: [ -1 ] }
]
dynamic_batching { }
instance_group [ { kind: KIND_CPU count: $tokenizers } ]
parameters { key: "length_step" value { string_value: "$length_step" } }
parameters { key: "most_tokens" value { string_value: "$most_tokens" } }
""")
MODEL_CONFIG = Template("""\
name: "${name}_model"
platform: "onnxruntime_onnx"
max_batch_size: $most_rows
input [
  { name: "input_ids" data_type: TYPE_INT64 dims: [ -1 ] },
  { name: "attention_mask" data_type: TYPE_INT64 dims: [ -1 ] }
]
output [ { name: "${output}__0" data_type: TYPE_FP32 dims: [ $dimensions ] } ]
dynamic_batching {
  preferred_batch_size: [ $most_merged_rows ]
  max_queue_delay_microseconds: $queue_delay_us
}
instance_group [ { kind: KIND_CPU count: $instances } ]
parameters { key: "intra_op_thread_count" value { string_value: "1" } }
parameters { key: "inter_op_thread_count" value { string_value: "1" } }
""")
ENSEMBLE_CONFIG = Template("""\
name: "${name}_ensemble"
platform: "ensemble"
max_batch_size: $most_rows
input [ { name: "TEXT" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "$output" data_type: TYPE_FP32 dims: [ $dimensions ] } ]
ensemble_scheduling { step [
  {
    model_name: "${name}_tokenizer" model_version: -1
    input_map { key: "TEXT" value: "TEXT" }
    output_map { key: "input_ids" value: "input_ids" }
    output_map { key: "attention_mask" value: "attention_mask" }
  },
  {
    model_name: "${name}_model" model_version: -1
    input_map { key: "input_ids" value: "input_ids" }
    input_map { key: "attention_mask" value: "attention_mask" }
    output_map { key: "${output}__0" value: "$output" }
  }
] }
""")


def write(folder: Path, models: Mapping[str, Model], settings: Settings) -> None:
    """Write it; model files are hard links where `folder` is on their disk."""
    many = len(models) >= settings.many
    values = msgspec.structs.asdict(settings) | {
        "instances": settings.instances_of_many if many else settings.instances,
        "most_tokens": MOST_TOKENS,
    }
    for name, model in models.items():
        given = values | {"name": name, "output": model.output}
        given["dimensions"] = DIMENSIONS[model.output]
        first = _model(folder / f"{name}_tokenizer", TOKENIZER_CONFIG.substitute(given))
        shutil.copy(TOKENIZER, first / "model.py")
        link(Path(model.tokenizer), first / "tokenizer.json")
        second = _model(folder / f"{name}_model", MODEL_CONFIG.substitute(given))
        link(Path(model.onnx), second / "model.onnx")
        _model(folder / f"{name}_ensemble", ENSEMBLE_CONFIG.substitute(given))


def _model(folder: Path, config: str) -> Path:
    """Make a model's folder; returns that of its version."""
    version = folder / "1"
    version.mkdir(parents=True)
    (folder / "config.pbtxt").write_text(config, encoding="utf-8")
    return version
