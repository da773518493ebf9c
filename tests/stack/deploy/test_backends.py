"""The Python-based backends on a real Triton: right answers, and the C++ backends' strictness."""

import asyncio
import contextlib
import re
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import psutil
import pytest
from tritonclient.grpc import InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

TOLERANCE = 1e-6
INDEX = np.array([[1]])
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

# by name: the graph, its configuration, and what the refusal must say
REFUSED: dict[str, tuple[str, str | None, str]] = {
    "onnx_missing_input": (
        "pair.onnx",
        ONNX_PAIR.replace('{ name: "a" data_type: TYPE_FP32 dims: [ 3 ] },', ""),
        "configuration expects 1 inputs, model provides 2",
    ),
    "onnx_extra_input": (
        "wide.onnx",
        ONNX_PAIR,
        "configuration expects 2 inputs, model provides 1",
    ),
    "onnx_unknown_input": (
        "pair.onnx",
        ONNX_PAIR.replace('"b"', '"B"'),
        "unexpected inference input 'B'.*allowed inputs are: a, b",
    ),
    "onnx_input_dtype": (
        "pair.onnx",
        ONNX_PAIR.replace("TYPE_FP32", "TYPE_FP64", 1),
        "expects datatype TYPE_FP64 for input 'a', model provides TYPE_FP32",
    ),
    "onnx_input_dims": (
        "pair.onnx",
        ONNX_PAIR.replace("[ 3 ]", "[ 4 ]", 1),
        r"tensor 'a': the model expects 2 dimensions \(shape \[-1, 3\]\).*\[-1, 4\]",
    ),
    "onnx_input_rank": (
        "pair.onnx",
        ONNX_PAIR.replace("[ 3 ]", "[ 3, 1 ]", 1),
        "tensor 'a': the model expects 2 dimensions",
    ),
    "onnx_input_wildcard": (
        "pair.onnx",
        ONNX_PAIR.replace("[ 3 ]", "[ -1 ]", 1),
        "tensor 'a': the model expects",
    ),
    "onnx_unknown_output": (
        "pair.onnx",
        ONNX_PAIR.replace('"total"', '"sum"'),
        "unexpected inference output 'sum'",
    ),
    "onnx_output_dtype": (
        "pair.onnx",
        ONNX_PAIR.replace('"total" data_type: TYPE_FP32', '"total" data_type: TYPE_INT32'),
        "expects datatype TYPE_INT32 for output 'total', model provides TYPE_FP32",
    ),
    "onnx_output_wildcard": (
        "pair.onnx",
        ONNX_PAIR.replace("[ 1 ]", "[ -1 ]"),
        "tensor 'total': the model expects",
    ),
    "onnx_output_narrowed": (
        "wide.onnx",
        ONNX_WIDE.replace("dims: [ -1 ]", "dims: [ 5 ]"),
        "tensor 'y': the model expects",
    ),
    "onnx_batched_fixed": (
        "fixed.onnx",
        ONNX_PAIR,
        "for the model to support batching",
    ),
    "onnx_no_batch": (
        "pair.onnx",
        ONNX_PAIR.replace("max_batch_size: 8", "max_batch_size: 0"),
        "tensor 'a': the model expects 2 dimensions",
    ),
    "onnx_auto_batched": ("fixed.onnx", "max_batch_size: 4", "does not support batching"),
    "onnx_threads": (
        "pair.onnx",
        ONNX_PAIR + parameter("intra_op_thread_count", "two"),
        "intra_op_thread_count must be an integer",
    ),
    "onnx_mode": (
        "pair.onnx",
        ONNX_PAIR + parameter("execution_mode", "2"),
        "execution_mode .* must be 0 or 1",
    ),
    "onnx_boolean": (
        "pair.onnx",
        ONNX_PAIR + parameter("enable_mem_arena", "maybe"),
        "enable_mem_arena must be true or false",
    ),
    "onnx_optional": (
        "pair.onnx",
        ONNX_PAIR.replace("dims: [ 3 ] },", "dims: [ 3 ] optional: true },", 1),
        "optional",
    ),
    "onnx_ragged": (
        "pair.onnx",
        ONNX_PAIR.replace("dims: [ 3 ] },", "dims: [ 3 ] allow_ragged_batch: true },", 1),
        "ragged input 'a'",
    ),
    "onnx_gpu": ("pair.onnx", ONNX_PAIR.replace("KIND_CPU", "KIND_GPU"), "KIND_GPU"),
    "onnx_accelerator": (
        "pair.onnx",
        ONNX_PAIR + "optimization { execution_accelerators "
        '{ cpu_execution_accelerator { name: "warp" } } }',
        "unknown Execution Accelerator 'warp'",
    ),
    "onnx_absent_file": (
        "pair.onnx",
        ONNX_PAIR + 'default_model_filename: "absent.onnx"',
        "absent.onnx",
    ),
    "onnx_corrupt": ("corrupt.onnx", ONNX_PAIR, "INVALID_PROTOBUF|Protobuf"),
    "torch_auto": ("pair.pt", None, "must contain at least one input"),
    "torch_one_input": (
        "pair.pt",
        TORCH_PAIR.replace('{ name: "a" data_type: TYPE_FP32 dims: [ 3 ] },', ""),
        "configuration expects 1 inputs, model provides 2",
    ),
    "torch_dtype": (
        "pair.pt",
        TORCH_PAIR.replace("TYPE_FP32", "TYPE_UINT32", 1),
        "unsupported datatype TYPE_UINT32 for input 'a'",
    ),
    "torch_list": ("many.pt", TORCH_LOOKUP, "an input of type 'List"),
    "torch_threads_text": (
        "lookup.pt",
        TORCH_LOOKUP + parameter("INTRA_OP_THREAD_COUNT", "1.5"),
        "INTRA_OP_THREAD_COUNT must be an integer",
    ),
    "torch_inter_op": (
        "lookup.pt",
        TORCH_LOOKUP + parameter("INTER_OP_THREAD_COUNT", "1"),
        "INTER_OP_THREAD_COUNT is refused",
    ),
    "torch_boolean": (
        "lookup.pt",
        TORCH_LOOKUP + parameter("INFERENCE_MODE", "often"),
        "INFERENCE_MODE must be true or false",
    ),
    "torch_gap": (
        "pair.pt",
        TORCH_PAIR.replace('"a"', '"INPUT__0"').replace('"b"', '"INPUT__2"'),
        "indices of its inputs",
    ),
    "torch_optional": (
        "pair.pt",
        TORCH_PAIR.replace("dims: [ 3 ] },", "dims: [ 3 ] optional: true },", 1),
        "optional",
    ),
    "torch_graph_rows": (
        "pair.pt",
        TORCH_PAIR + "optimization { cuda { graphs: true graph_spec { batch_size: 9 } } }",
        "no request has the shape of graph_spec { batch_size: 9",
    ),
    "torch_graph_dims": (
        "pair.pt",
        TORCH_PAIR
        + "optimization { cuda { graphs: true graph_spec { batch_size: 2 "
        + 'input { key: "a" value { dim: [ 3, 1 ] } } } } }',
        r"no request has the shape .* input: {'a': \(3, 1\)}",
    ),
    "torch_gpu": ("pair.pt", TORCH_PAIR.replace("KIND_CPU", "KIND_GPU"), "KIND_GPU"),
    "torch_corrupt": ("corrupt.pt", TORCH_PAIR, "corrupt.pt|PytorchStreamReader|archive"),
}


@pytest.fixture(scope="module")
async def models(served: Any, load_all: Any) -> Any:
    """Every good model, loaded."""
    for name, (graph, config) in SERVED.items():
        served.write(name, graph, config)
    served.write(
        "onnx_renamed", "pair.onnx", ONNX_PAIR + 'default_model_filename: "net.onnx"', "net.onnx"
    )
    errors = await load_all([*SERVED, "onnx_renamed"])
    assert {name: text for name, text in errors.items() if text} == {}
    return served


@pytest.fixture(scope="module")
async def refusals(models: Any, load_all: Any) -> dict[str, str]:
    """What Triton answered to each bad model's load."""
    for name, (graph, config, _) in REFUSED.items():
        models.write(name, graph, config)
    return await load_all(list(REFUSED))


async def infer(
    served: Any, model: str, feeds: dict[str, Any], outputs: Sequence[str] = ()
) -> dict[str, np.ndarray[Any, Any]]:
    inputs = []
    for name, value in feeds.items():
        array = np.asarray(value)
        tensor = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    wanted = [InferRequestedOutput(name) for name in outputs] or None
    answer = await served.client.infer(model, inputs, outputs=wanted)
    return {tensor.name: answer.as_numpy(tensor.name) for tensor in answer.get_response().outputs}


def rows(count: int, width: int = 3) -> np.ndarray[Any, Any]:
    return np.random.default_rng(count).normal(size=(count, width)).astype(np.float32)


@pytest.mark.parametrize("name", REFUSED)
async def test_refused_at_load(refusals: dict[str, str], name: str) -> None:
    assert re.search(REFUSED[name][2], refusals[name], re.DOTALL), refusals[name] or "it loaded"


@pytest.mark.parametrize("model", ["onnx_pair", "onnx_renamed", "onnx_tuned", "onnx_auto"])
async def test_onnx_outputs(models: Any, model: str) -> None:
    a, b = rows(4), rows(3)[:1] + np.zeros((4, 1), np.float32)
    answer = await infer(models, model, {"b": b, "a": a})
    assert answer.keys() == {"difference", "total"}
    np.testing.assert_allclose(answer["difference"], a - b, rtol=TOLERANCE)
    np.testing.assert_allclose(answer["total"], a.sum(1, keepdims=True), rtol=TOLERANCE)


@pytest.mark.parametrize(
    ("model", "values", "prefixes"),
    [("onnx_types", ONNX_TYPES, ("in_", "out_")), ("torch_types", TORCH_TYPES, ("", "out_"))],
)
async def test_every_dtype_passes_unchanged(
    models: Any, model: str, values: dict[str, Any], prefixes: tuple[str, str]
) -> None:
    feeds = {prefixes[0] + name: array for name, array in values.items()}
    answer = await infer(models, model, feeds)
    for name, array in values.items():
        got = answer[prefixes[1] + name]
        assert got.dtype == array.dtype
        np.testing.assert_array_equal(got, array, err_msg=name)


async def test_text_is_right_or_refused(models: Any, numpy_version: str) -> None:
    models.write("onnx_text", "text.onnx", TEXT_CONFIG)
    if not numpy_version.startswith("1."):
        with pytest.raises(InferenceServerException, match="text needs numpy below 2"):
            await models.client.load_model("onnx_text")
        return
    await models.client.load_model("onnx_text")
    good, failure = await asyncio.gather(
        infer(models, "onnx_text", {"x": TEXT}),
        infer(models, "onnx_text", {"x": np.array([[b"\xff", b""]], np.object_)}),
        return_exceptions=True,
    )
    np.testing.assert_array_equal(good["y"], TEXT)
    assert isinstance(failure, InferenceServerException)  # alone, though in the same batch
    assert failure.status() == "StatusCode.INVALID_ARGUMENT"


async def test_concurrent_singles_are_batched_and_equal_the_batch(models: Any) -> None:
    batch = rows(16, width=7)
    whole = (await infer(models, "onnx_wide", {"x": batch}))["y"]
    before = await models.client.get_inference_statistics("onnx_wide", as_json=True)
    singles = await asyncio.gather(
        *(infer(models, "onnx_wide", {"x": batch[i : i + 1]}) for i in range(16))
    )
    after = await models.client.get_inference_statistics("onnx_wide", as_json=True)
    np.testing.assert_allclose(whole, 2 * batch, rtol=TOLERANCE)
    np.testing.assert_allclose(np.concatenate([s["y"] for s in singles]), whole, rtol=TOLERANCE)
    executions = [int(s["model_stats"][0]["execution_count"]) for s in (before, after)]
    assert executions[1] - executions[0] < 16


async def test_requests_of_one_batch_keep_their_rows_and_outputs(models: Any) -> None:
    sizes = (1, 3, 2, 1)
    values = [rows(size, width=5) for size in sizes]
    answers = await asyncio.gather(*(infer(models, "onnx_wide", {"x": v}) for v in values))
    for value, answer in zip(values, answers, strict=True):
        np.testing.assert_allclose(answer["y"], 2 * value, rtol=TOLERANCE)


@pytest.mark.parametrize(
    ("model", "outputs"), [("onnx_pair", ["total"]), ("torch_order", ["total"])]
)
async def test_a_subset_of_the_outputs(models: Any, model: str, outputs: list[str]) -> None:
    a = rows(2)
    names = ("a", "b") if model == "onnx_pair" else ("first", "second")
    answer = await infer(models, model, dict.fromkeys(names, a), outputs)
    assert list(answer) == outputs
    np.testing.assert_allclose(answer["total"], a.sum(1, keepdims=True), rtol=TOLERANCE)


async def test_a_model_may_list_a_subset_of_its_outputs(models: Any) -> None:
    answer = await infer(models, "onnx_subset", {"a": rows(2), "b": rows(2)})
    assert list(answer) == ["total"]


async def test_a_wildcard_input_may_be_narrowed(models: Any) -> None:
    answer = await infer(models, "onnx_narrowed", {"x": rows(2, width=5)})
    np.testing.assert_allclose(answer["y"], 2 * rows(2, width=5), rtol=TOLERANCE)
    with pytest.raises(InferenceServerException, match="INVALID_ARGUMENT"):
        await infer(models, "onnx_narrowed", {"x": rows(2, width=4)})


async def test_without_a_batch_dimension(models: Any) -> None:
    a = rows(2)
    answers = await asyncio.gather(
        *(infer(models, "onnx_fixed", {"a": a + i, "b": a}) for i in range(4))
    )
    for i, answer in enumerate(answers):
        np.testing.assert_allclose(answer["difference"], np.full((2, 3), i), atol=TOLERANCE)


@pytest.mark.parametrize(
    ("model", "value"),
    [("onnx_scalar", [2.5]), ("onnx_reshape", [[2.5], [1]]), ("onnx_auto_flat", [[2.5], [1]])],
)
async def test_scalars_and_reshapes(models: Any, model: str, value: Any) -> None:
    array = np.array(value, np.float32)
    answer = await infer(models, model, {"x": array})
    np.testing.assert_array_equal(answer["y"], -array)


@pytest.mark.parametrize(
    ("model", "batch", "batching", "dims"),
    [
        ("onnx_auto", 4, True, {"a": [3], "b": [3], "difference": [3], "total": [1]}),
        ("onnx_auto_fixed", 0, False, {"a": [2, 3], "b": [2, 3]}),
        ("onnx_auto_flat", 3, True, {"x": [1], "y": [1]}),
    ],
)
async def test_completed_configuration(
    models: Any, model: str, batch: int, batching: bool, dims: dict[str, list[int]]
) -> None:
    config = (await models.client.get_model_config(model, as_json=True))["config"]
    tensors = {t["name"]: [int(d) for d in t["dims"]] for t in config["input"] + config["output"]}
    assert config.get("max_batch_size", 0) == batch
    assert ("dynamic_batching" in config) is batching
    assert tensors.items() >= dims.items()


@pytest.mark.parametrize(
    ("model", "names", "outputs"),
    [
        ("torch_names", ("a", "b"), ("OUTPUT__0", "OUTPUT__1")),
        ("torch_index", ("INPUT__0", "INPUT__1"), ("OUTPUT__0", "OUTPUT__1")),
        ("torch_order", ("first", "second"), ("difference", "total")),
    ],
)
async def test_torchscript_naming(
    models: Any, model: str, names: tuple[str, str], outputs: tuple[str, str]
) -> None:
    a, b = rows(2), rows(2) + 1
    answer = await infer(models, model, dict(zip(names, (a, b), strict=True)))
    np.testing.assert_allclose(answer[outputs[0]], a - b, rtol=TOLERANCE)
    np.testing.assert_allclose(answer[outputs[1]], a.sum(1, keepdims=True), rtol=TOLERANCE)


async def test_torchscript_dict_of_tensors(models: Any) -> None:
    answer = await infer(models, "torch_keyed", {"b": rows(2), "a": rows(2) + 1})
    np.testing.assert_allclose(answer["OUTPUT__0"], np.ones((2, 3)), rtol=TOLERANCE)


@pytest.mark.parametrize(
    ("model", "feeds", "reason"),
    [
        (
            "torch_third_output",
            {"a": rows(1), "b": rows(1)},
            "OUTPUT__2 .* index which doesn't exist. This model has 2 outputs",
        ),
        ("torch_wrong_dtype", {"index": INDEX}, "expects datatype TYPE_FP64 .* provides float32"),
        ("torch_wrong_dims", {"index": INDEX}, r"expects shape \[1, 2\] .* provides \[1, 1\]"),
    ],
)
async def test_outputs_are_checked(
    models: Any, model: str, feeds: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InferenceServerException, match=reason) as caught:
        await infer(models, model, feeds)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


@pytest.mark.parametrize("model", ["onnx_lookup", "torch_lookup"])
async def test_a_failing_inference_leaves_its_process_serving(models: Any, model: str) -> None:
    before = stub(models, model).pid
    good, bad, again = await asyncio.gather(
        *(infer(models, model, {"index": np.array([[i]])}) for i in (1, 99, 2)),
        return_exceptions=True,
    )
    assert isinstance(bad, InferenceServerException)
    assert bad.status() == "StatusCode.INTERNAL"
    assert (good["value"], again["value"]) == ([[11.0]], [[12.0]])
    assert stub(models, model).pid == before


async def test_thread_defaults_and_parameters(models: Any) -> None:
    for model in ("torch_lookup", "torch_tuned"):
        assert (await infer(models, model, {"index": INDEX}))["value"] == [[11.0]]

    def threads(model: str) -> int:
        return stub(models, model).num_threads()

    # The thread that asks counts as one of an inference's. Both frameworks may start helpers with
    # a pool, so these are lower bounds; torch's pool begins with its first large product.
    assert threads("onnx_tuned") - threads("onnx_pair") >= 3 - 1
    assert threads("torch_tuned") - threads("torch_lookup") >= 2 - 1


async def test_instances_stand_back_behind_the_servers_that_feed_them(models: Any) -> None:
    assert [stub(models, model).nice() for model in ("onnx_pair", "torch_lookup")] == [5, 5]


async def test_a_model_can_be_loaded_again_and_unloaded(models: Any) -> None:
    process = stub(models, "onnx_renamed")
    await models.client.load_model("onnx_renamed")
    answer = await infer(models, "onnx_renamed", {"a": rows(1), "b": rows(1)})
    np.testing.assert_array_equal(answer["difference"], np.zeros((1, 3)))
    await models.client.unload_model("onnx_renamed")
    deadline = time.monotonic() + 10
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_a_killed_instance_comes_back_with_a_reload(models: Any) -> None:
    feeds = {"x": rows(1, width=5)}
    stub(models, "onnx_narrowed").kill()
    with pytest.raises(InferenceServerException, match="is not healthy"):
        await infer(models, "onnx_narrowed", feeds)
    await models.client.unload_model("onnx_narrowed")
    await models.client.load_model("onnx_narrowed")
    answer = await infer(models, "onnx_narrowed", feeds)
    np.testing.assert_allclose(answer["y"], 2 * feeds["x"], rtol=TOLERANCE)


def stub(served: Any, model: str) -> psutil.Process:
    """The process of the model's only instance, named with its group where the config has one."""
    names = {f"{model}_0", f"{model}_0_0"}
    for child in psutil.Process(served.triton.status.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if names & set(child.cmdline()):
                return child
    raise LookupError(model)
