"""Models that the backends must serve: name → graph and config.pbtxt."""

import re
from typing import Any

import numpy as np
from tritonclient.utils import np_to_triton_dtype

ONNX_PAIR = """
platform: "onnxruntime_onnx"
max_batch_size: 8
input [
  { name: "a" data_type: TYPE_FP32 dims: [ 3 ] },
  { name: "b" data_type: TYPE_FP32 dims: [ 3 ] }
]
output [
  { name: "difference" data_type: TYPE_FP32 dims: [ 3 ] },
  { name: "total" data_type: TYPE_FP32 dims: [ 1 ] }
]
instance_group [ { kind: KIND_CPU count: 1 } ]
"""
TORCH_PAIR = (
    ONNX_PAIR.replace("onnxruntime_onnx", "pytorch_libtorch")
    .replace('"difference"', '"OUTPUT__0"')
    .replace('"total"', '"OUTPUT__1"')
)
ONNX_WIDE = """
backend: "onnxruntime"
max_batch_size: 16
input { name: "x" data_type: TYPE_FP32 dims: [ -1 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ -1 ] }
instance_group { kind: KIND_AUTO count: 1 }
dynamic_batching { max_queue_delay_microseconds: 100000 }
"""
SCALAR = """
input { name: "x" data_type: TYPE_FP32 dims: 1 }
output { name: "y" data_type: TYPE_FP32 dims: 1 }
instance_group { count: 1 }
"""
RESHAPED = "dims: 1 reshape { }"
LOOKUP = """
max_batch_size: 8
input { name: "index" data_type: TYPE_INT64 dims: [ 1 ] }
output { name: "value" data_type: TYPE_FP32 dims: [ 1 ] }
instance_group { kind: KIND_CPU count: 1 }
"""
TORCH_LOOKUP = 'backend: "pytorch"' + LOOKUP
ONNX_TYPES = {
    "bool": np.array([[True, False], [False, True]]),
    "uint8": np.array([[0, 255], [1, 2]], np.uint8),
    "uint16": np.array([[0, 65535], [1, 2]], np.uint16),
    "uint32": np.array([[0, 2**32 - 1], [1, 2]], np.uint32),
    "uint64": np.array([[0, 2**64 - 1], [1, 2]], np.uint64),
    "int8": np.array([[-128, 127], [1, 2]], np.int8),
    "int16": np.array([[-32768, 32767], [1, 2]], np.int16),
    "int32": np.array([[-(2**31), 2**31 - 1], [1, 2]], np.int32),
    "int64": np.array([[-(2**63), 2**63 - 1], [1, 2]], np.int64),
    "fp16": np.array([[0.5, -65504], [1, 2]], np.float16),
    "fp32": np.array([[0.1, -1e38], [1, np.inf]], np.float32),
    "fp64": np.array([[0.1, -1e308], [1, 2]], np.float64),
}
TEXT = np.array([[b"", "žluťoučký".encode()], [b"a\0b", b"text"]], np.object_)
TEXT_CONFIG = """
max_batch_size: 8
input { name: "x" data_type: TYPE_STRING dims: 2 }
output { name: "y" data_type: TYPE_STRING dims: 2 }
instance_group { count: 1 }
dynamic_batching { max_queue_delay_microseconds: 200000 }
"""
TORCH_TYPES = {
    name: ONNX_TYPES[kind]
    for name, kind in zip(
        "abcdefghi",
        ("bool", "uint8", "int8", "int16", "int32", "int64", "fp16", "fp32", "fp64"),
        strict=True,
    )
}


def types_config(platform: str, values: dict[str, Any], prefixes: tuple[str, str]) -> str:
    dtypes = {name: np_to_triton_dtype(array.dtype) for name, array in values.items()}

    def tensors(prefix: str) -> str:
        return ", ".join(
            f'{{ name: "{prefix}{name}" data_type: TYPE_{dtype} dims: 2 }}'
            for name, dtype in dtypes.items()
        )

    return (
        f'platform: "{platform}" max_batch_size: 8 input [ {tensors(prefixes[0])} ] '
        f"output [ {tensors(prefixes[1])} ] instance_group {{ count: 1 }} "
        "dynamic_batching { max_queue_delay_microseconds: 200000 }"
    )


def parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'


# by name: the graph and its configuration
SERVED: dict[str, tuple[str, str | None]] = {
    "onnx_pair": ("pair.onnx", ONNX_PAIR),
    "onnx_types": (
        "types.onnx",
        types_config("onnxruntime_onnx", ONNX_TYPES, ("in_", "out_")),
    ),
    "onnx_wide": ("wide.onnx", ONNX_WIDE),
    "onnx_narrowed": (
        "wide.onnx",
        ONNX_WIDE.replace("dims: [ -1 ]", "dims: [ 5 ]", 1),
    ),
    "onnx_subset": (
        "pair.onnx",
        ONNX_PAIR.replace('{ name: "difference" data_type: TYPE_FP32 dims: [ 3 ] },', ""),
    ),
    "onnx_fixed": (
        "fixed.onnx",
        ONNX_PAIR.replace("max_batch_size: 8", "max_batch_size: 0")
        .replace("[ 3 ]", "[ 2, 3 ]")
        .replace("[ 1 ]", "[ 2, 1 ]"),
    ),
    "onnx_scalar": ("scalar.onnx", SCALAR),
    "onnx_reshape": ("flat.onnx", "max_batch_size: 4" + SCALAR.replace("dims: 1", RESHAPED)),
    "onnx_lookup": ("lookup.onnx", LOOKUP),
    "onnx_auto": ("pair.onnx", None),
    "onnx_auto_fixed": ("fixed.onnx", None),
    "onnx_auto_flat": ("flat.onnx", "max_batch_size: 3"),
    "onnx_tuned": (
        "pair.onnx",
        ONNX_PAIR
        + parameter("intra_op_thread_count", "3")
        + parameter("INTRA_OP_THREAD_COUNT", "ignored")
        + parameter("no_such_key", "ignored")
        + parameter("execution_mode", "1")
        + parameter("enable_mem_arena", "false")
        + "optimization { graph { level: 1 } execution_accelerators "
        '{ gpu_execution_accelerator { name: "tensorrt" } } }',
    ),
    "torch_names": (
        "pair.pt",
        TORCH_PAIR.replace('"a"', '"swap"').replace('"b"', '"a"').replace('"swap"', '"b"'),
    ),
    "torch_index": (
        "pair.pt",
        TORCH_PAIR.replace('"a"', '"INPUT__1"')
        .replace('"b"', '"INPUT__0"')
        .replace('"OUTPUT__0"', '"swap"')
        .replace('"OUTPUT__1"', '"OUTPUT__0"')
        .replace('"swap"', '"OUTPUT__1"')
        .replace(
            'dims: [ 3 ] },\n  { name: "OUTPUT__0" data_type: TYPE_FP32 dims: [ 1 ]',
            'dims: [ 1 ] },\n  { name: "OUTPUT__0" data_type: TYPE_FP32 dims: [ 3 ]',
        ),
    ),
    "torch_order": (
        "pair.pt",
        TORCH_PAIR.replace('"a"', '"first"')
        .replace('"b"', '"second"')
        .replace("OUTPUT__0", "difference")
        .replace("OUTPUT__1", "total"),
    ),
    "torch_keyed": (
        "keyed.pt",
        re.sub(r",\s*{ name: \"OUTPUT__1\".*", "", TORCH_PAIR),
    ),
    "torch_types": (
        "types.pt",
        types_config("pytorch_libtorch", TORCH_TYPES, ("", "out_")),
    ),
    "torch_lookup": ("lookup.pt", TORCH_LOOKUP),
    "torch_tuned": (
        "lookup.pt",
        TORCH_LOOKUP
        + parameter("INTRA_OP_THREAD_COUNT", "2")
        + parameter("intra_op_thread_count", "ignored")
        + parameter("INFERENCE_MODE", "false")
        + parameter("DISABLE_OPTIMIZED_EXECUTION", "true")
        + parameter("ENABLE_JIT_PROFILING", "false")
        + parameter("ENABLE_WEIGHT_SHARING", "true")
        + "optimization { cuda { graphs: true graph_spec { batch_size: 2 } } }",
    ),
    "torch_third_output": ("pair.pt", TORCH_PAIR.replace("OUTPUT__1", "OUTPUT__2")),
    "torch_wrong_dtype": (
        "lookup.pt",
        TORCH_LOOKUP.replace("TYPE_FP32", "TYPE_FP64"),
    ),
    "torch_wrong_dims": (
        "lookup.pt",
        TORCH_LOOKUP.replace("TYPE_FP32 dims: [ 1 ]", "TYPE_FP32 dims: [ 2 ]"),
    ),
}
