"""Triton's `onnxruntime` backend in Python, for the embedded Triton.

`platform: "onnxruntime_onnx"` resolves to this file there and to the C++ backend in the official
container. The checks, defaults and parameter names are those of the C++ backend.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "common"))

import triton_python_backend_utils as pb_utils
from gateway_backend.config import ConfigError, ModelConfig, Tensor, model_file
from gateway_backend.execution import BatchedModel, give_way
from numpy.typing import NDArray

FILENAME = "model.onnx"
AUTOFILLED_BATCH_SIZE = 4  # Triton's --backend-config=default-max-batch-size
TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": "TYPE_STRING",
}
CUDA = "CUDAExecutionProvider"


class TritonPythonModel(BatchedModel):
    """One instance of an ONNX model: a session of its own, in a process of its own."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config: Any) -> Any:
        """Fill in what the configuration leaves out, from the graph."""
        raw = auto_complete_model_config.as_dict()
        if raw["input"] and raw["output"]:
            return auto_complete_model_config  # nothing to do: spare the import of onnxruntime
        import onnxruntime  # noqa: PLC0415

        path = model_file(raw, Path(pb_utils.get_model_dir()), FILENAME)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        graph = {
            "input": {node.name: _graph_tensor(node) for node in session.get_inputs()},
            "output": {node.name: _graph_tensor(node) for node in session.get_outputs()},
        }
        shapes = [tensor.dims for side in graph.values() for tensor in side.values()]
        if all(shape[:1] == (-1,) for shape in shapes):
            raw["max_batch_size"] = raw["max_batch_size"] or AUTOFILLED_BATCH_SIZE
            if raw["max_batch_size"] > 1 and "sequence_batching" not in raw:
                raw.setdefault("dynamic_batching", {})
        elif raw["max_batch_size"]:
            raise ConfigError(
                f"autofill failed for model '{raw['name']}': model does not support batching "
                "while non-zero max_batch_size is specified"
            )
        for side, tensors in graph.items():
            raw[side] = raw[side] or [
                _config_entry(tensor, batched=raw["max_batch_size"] > 0)
                for tensor in tensors.values()
            ]
        return auto_complete_model_config

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open the session and check the configuration against the graph."""
        self.config = ModelConfig.from_args(args, FILENAME)
        give_way(self.config)
        self._session, self._run_options = _open_session(self.config)
        inputs = {node.name: _graph_tensor(node) for node in self._session.get_inputs()}
        outputs = {node.name: _graph_tensor(node) for node in self._session.get_outputs()}
        self.config.expect_count(len(inputs))
        for tensor in self.config.inputs:
            _compare(self.config, "input", tensor, inputs, exact=False)
        for tensor in self.config.outputs:
            _compare(self.config, "output", tensor, outputs, exact=True)
        self._scalars = {name for name, tensor in {**inputs, **outputs}.items() if not tensor.dims}

    def infer(
        self, feeds: dict[str, NDArray[Any]], outputs: Sequence[str]
    ) -> Mapping[str, NDArray[Any]]:
        """Run the session on CPU arrays; with CUDA, ONNX Runtime copies them itself."""
        for name in self._scalars & feeds.keys():
            feeds[name] = feeds[name].reshape(())
        answers = dict(
            zip(outputs, self._session.run(outputs, feeds, self._run_options), strict=True)
        )
        for tensor in self.config.outputs:
            if tensor.name in self._scalars & answers.keys():
                answers[tensor.name] = answers[tensor.name].reshape(tensor.dims)
        return answers


def _open_session(config: ModelConfig) -> tuple[Any, Any]:
    import onnxruntime  # noqa: PLC0415 - the auto-complete process can often do without

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = config.threads("intra_op_thread_count")
    options.inter_op_num_threads = max(config.integer("inter_op_thread_count") or 1, 1)
    # A spinning pool keeps cores busy that other models wait for. Measured, 2 threads on 2 cores, a
    # request every 5 ms: 7.7 ms of CPU a run with spinning, 3.5 ms without, at the same latency.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    mode = config.integer("execution_mode") or 0
    if mode not in (0, 1):
        raise ConfigError(f"execution_mode of model '{config.name}' must be 0 or 1, not {mode}")
    modes = onnxruntime.ExecutionMode
    options.execution_mode = modes.ORT_PARALLEL if mode else modes.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = config.boolean("enable_mem_arena", default=True)
    options.enable_mem_pattern = config.boolean("enable_mem_pattern", default=True)
    config.boolean("share_session_between_instances", default=False)  # here, one process each
    options.graph_optimization_level = _optimization_level(config)
    initializers = config.parameters.get("session.use_device_allocator_for_initializers")
    if initializers is not None:
        options.add_session_config_entry(
            "session.use_device_allocator_for_initializers", initializers
        )
    for library in config.raw.get("model_operations", {}).get("op_library_filename", ()):
        options.register_custom_ops_library(library)
    run_options = onnxruntime.RunOptions()
    shrinkage = config.parameters.get("memory.enable_memory_arena_shrinkage")
    if shrinkage is not None:
        run_options.add_run_config_entry("memory.enable_memory_arena_shrinkage", shrinkage)
    session = onnxruntime.InferenceSession(config.path, options, providers=_providers(config))
    if config.kind == "GPU" and CUDA not in session.get_providers():
        raise ConfigError(f"model '{config.name}' is KIND_GPU, but ONNX Runtime found no CUDA")
    return session, run_options


def _optimization_level(config: ModelConfig) -> Any:
    import onnxruntime  # noqa: PLC0415

    levels = onnxruntime.GraphOptimizationLevel
    level = int(config.raw.get("optimization", {}).get("graph", {}).get("level", 0))
    return {
        -1: levels.ORT_ENABLE_BASIC,
        1: levels.ORT_ENABLE_EXTENDED,
        2: levels.ORT_DISABLE_ALL,
    }.get(level, levels.ORT_ENABLE_ALL)


def _providers(config: ModelConfig) -> list[Any]:
    import onnxruntime  # noqa: PLC0415

    accelerators = config.raw.get("optimization", {}).get("execution_accelerators", {})
    for accelerator in accelerators.get("cpu_execution_accelerator", ()):
        if accelerator["name"] != "openvino":  # results agree without it, so only speed is lost
            raise ConfigError(f"unknown Execution Accelerator '{accelerator['name']}' is requested")
    if config.kind != "GPU":
        return ["CPUExecutionProvider"]
    if CUDA not in onnxruntime.get_available_providers():
        raise ConfigError(
            f"model '{config.name}' is KIND_GPU, but this ONNX Runtime has no CUDA: install "
            "onnxruntime-gpu, or hide the GPU with CUDA_VISIBLE_DEVICES="
        )
    return [(CUDA, {"device_id": config.device_id}), "CPUExecutionProvider"]


def _graph_tensor(node: Any) -> Tensor:
    if node.type not in TYPES:
        raise ConfigError(f"unsupported ONNX type '{node.type}' for '{node.name}'")
    dims = tuple(dim if isinstance(dim, int) else -1 for dim in node.shape)
    return Tensor(node.name, TYPES[node.type], dims)


def _config_entry(tensor: Tensor, *, batched: bool) -> dict[str, Any]:
    dims = list(tensor.dims[1:] if batched else tensor.dims)
    entry: dict[str, Any] = {
        "name": tensor.name,
        "data_type": tensor.data_type,
        "dims": dims or [1],
    }
    if batched and not dims:
        entry["reshape"] = {"shape": []}
    return entry


def _compare(
    config: ModelConfig, role: str, tensor: Tensor, graph: Mapping[str, Tensor], *, exact: bool
) -> None:
    """Refuse a configured tensor that the graph does not have in just this form."""
    found = graph.get(tensor.name)
    if found is None:
        raise ConfigError(
            f"unexpected inference {role} '{tensor.name}' for model '{config.name}', "
            f"allowed {role}s are: {', '.join(graph)}"
        )
    if tensor.data_type != found.data_type:
        raise ConfigError(
            f"unable to load model '{config.name}', configuration expects datatype "
            f"{tensor.data_type} for {role} '{tensor.name}', model provides {found.data_type}"
        )
    batched = config.max_batch_size > 0
    if batched and found.dims[:1] != (-1,):
        raise ConfigError(
            f"model '{config.name}', tensor '{tensor.name}': for the model to support batching the "
            "shape should have at least 1 dimension and the first dimension must be -1; but shape "
            f"expected by the model is {list(found.dims)}"
        )
    dims = (-1, *tensor.dims) if batched else tensor.dims
    if not found.dims:
        fits = all(dim == 1 for dim in dims)
    else:
        fits = len(dims) == len(found.dims) and all(
            have == want or (have == -1 and not exact)
            for want, have in zip(dims, found.dims, strict=True)
        )
    if not fits:
        raise ConfigError(
            f"model '{config.name}', tensor '{tensor.name}': the model expects {len(found.dims)} "
            f"dimensions (shape {list(found.dims)}) but the model configuration specifies "
            f"{len(dims)} dimensions (shape {list(dims)})"
        )
