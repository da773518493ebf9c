"""Models that the backends must refuse to load, and why: name → graph, config.pbtxt, reason."""

from tests.stack.deploy.backend_models import (
    ONNX_PAIR,
    ONNX_WIDE,
    TORCH_LOOKUP,
    TORCH_PAIR,
    parameter,
)

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
