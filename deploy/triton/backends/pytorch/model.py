"""Triton's `pytorch` backend (TorchScript) in Python, for the embedded Triton.

`platform: "pytorch_libtorch"` resolves to this file there and to the C++ backend in the official
container. Like that one it never completes a configuration, reads inputs by argument name, by
`name__N` or by their order, and checks outputs at inference only.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "common"))

from gateway_backend.config import ConfigError, ModelConfig, Tensor
from gateway_backend.cuda_graphs import CudaGraphs, graph_shapes
from gateway_backend.execution import BatchedModel, OutputError, give_way
from numpy.typing import NDArray

FILENAME = "model.pt"
DEFAULTS = {
    "INFERENCE_MODE": True,
    "DISABLE_OPTIMIZED_EXECUTION": False,
    "ENABLE_CACHE_CLEANING": False,
    "ENABLE_WEIGHT_SHARING": False,  # checked only: here each instance is one process
}
COMPILER = {
    "ENABLE_JIT_PROFILING": "_jit_set_profiling_mode",
    "ENABLE_JIT_EXECUTOR": "_jit_set_profiling_executor",
    "ENABLE_TENSOR_FUSER": "_jit_set_texpr_fuser_enabled",
}
UNSUPPORTED = ("TYPE_STRING", "TYPE_UINT16", "TYPE_UINT32", "TYPE_UINT64")


class TritonPythonModel(BatchedModel):
    """One instance of a TorchScript model, in a process of its own."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the module and check inputs, the only thing that TorchScript lets one check."""
        self.config = config = ModelConfig.from_args(args, FILENAME)
        settings = _settings(config)  # all checks that do without torch come before its slow import
        for role, tensors in (("input", config.inputs), ("output", config.outputs)):
            _refuse_dtypes(config, role, tensors)
        give_way(config)
        import torch  # noqa: PLC0415 - not at the top: the auto-complete process needs none of it

        torch.set_num_threads(config.threads("INTRA_OP_THREAD_COUNT"))
        torch.set_num_interop_threads(1)
        _set_compiler(torch, settings)
        self._torch = torch
        self._device = _device(torch, config)
        self._contexts = _contexts(torch, settings)
        self._clean_cache = settings["ENABLE_CACHE_CLEANING"]
        self._module = torch.jit.load(config.path, map_location=self._device).eval()
        arguments = _tensor_arguments(config, self._module)
        self._as_dict = arguments is None
        if arguments is not None:
            config.expect_count(len(arguments))
        self._inputs = _input_order(config, arguments or [])
        self._outputs = _output_positions(config)
        shapes = graph_shapes(config, self._inputs)
        self._run = self._call_on_device
        if shapes and config.kind == "GPU":
            self._run = graphs = CudaGraphs(torch, self._call, self._device)
            dtypes = {tensor.name: getattr(torch, tensor.dtype.name) for tensor in config.inputs}
            with self._inference():
                for rows, each in shapes:
                    graphs.record(rows, each, [dtypes[name] for name in self._inputs])

    def read(self, tensor: Any, spec: Tensor) -> Any:
        """Wrap one request's input, in whichever memory it lies: nothing is copied."""
        del spec  # no text here, so DLPack takes every dtype
        return self._torch.from_dlpack(tensor.to_dlpack())

    def join(self, parts: Sequence[Any]) -> Any:
        """Join on the host what lies there, so that it goes to the device at once."""
        if any(part.is_cuda for part in parts):
            parts = [part.to(self._device) for part in parts]
        return self._torch.cat(parts)

    def infer(self, feeds: dict[str, Any], outputs: Sequence[str]) -> Mapping[str, NDArray[Any]]:
        """Run the module; outputs come back to the CPU once for the whole batch."""
        torch = self._torch
        with self._inference():
            answers = self._run([feeds[name] for name in self._inputs])
            self._check_outputs(answers)
            chosen = {name: answers[self._outputs[name]] for name in outputs}
            arrays = {
                name: tensor.detach().cpu().contiguous().numpy() for name, tensor in chosen.items()
            }
        if self._clean_cache and torch.cuda.is_available():
            torch.cuda.empty_cache()
        return arrays

    @contextmanager
    def _inference(self) -> Iterator[None]:
        with ExitStack() as stack:
            for context in self._contexts:
                stack.enter_context(context())
            yield

    def _call_on_device(self, tensors: Sequence[Any]) -> tuple[Any, ...]:
        return self._call([tensor.to(self._device) for tensor in tensors])

    def _call(self, tensors: Sequence[Any]) -> tuple[Any, ...]:
        """Run the module on tensors that lie where it does."""
        if self._as_dict:
            answer = self._module(dict(zip(self._inputs, tensors, strict=True)))
        else:
            answer = self._module(*tensors)
        return answer if isinstance(answer, tuple) else (answer,)

    def _check_outputs(self, answers: tuple[Any, ...]) -> None:
        for position, answer in enumerate(answers):
            if not isinstance(answer, self._torch.Tensor):
                raise OutputError(
                    "output must be of type Tensor or Tuple of Tensors; output at index "
                    f"{position} is {type(answer).__name__}"
                )
        for tensor in self.config.outputs:
            position = self._outputs[tensor.name]
            if position >= len(answers):
                raise OutputError(
                    f"The output {tensor.name} in the model configuration refers to an output "
                    f"index which doesn't exist. This model has {len(answers)} outputs"
                )
            provided = str(answers[position].dtype).removeprefix("torch.")
            if provided != tensor.dtype.name:  # here, since numpy cannot hold every torch dtype
                raise OutputError(
                    f"configuration expects datatype {tensor.data_type} for output "
                    f"'{tensor.name}', model provides {provided}"
                )


def _settings(config: ModelConfig) -> dict[str, bool]:
    """The boolean parameters, checked; those of the compiler only where given."""
    if config.integer("INTER_OP_THREAD_COUNT") is not None:
        raise ConfigError(
            f"unable to load model '{config.name}', INTER_OP_THREAD_COUNT is refused: with the C++ "
            "backend the second model that sets it aborts the server"
        )
    config.integer("INTRA_OP_THREAD_COUNT")
    settings = {key: config.boolean(key, default=default) for key, default in DEFAULTS.items()}
    for key in COMPILER.keys() & config.parameters.keys():
        settings[key] = config.boolean(key, default=False)
    return settings


def _set_compiler(torch: Any, settings: Mapping[str, bool]) -> None:
    for key in COMPILER.keys() & settings.keys():
        getattr(torch._C, COMPILER[key])(settings[key])  # noqa: SLF001 - it has no other name


def _contexts(torch: Any, settings: Mapping[str, bool]) -> list[Callable[[], Any]]:
    contexts = [torch.inference_mode if settings["INFERENCE_MODE"] else torch.no_grad]
    if settings["DISABLE_OPTIMIZED_EXECUTION"]:
        contexts.append(lambda: torch.jit.optimized_execution(False))
    return contexts


def _device(torch: Any, config: ModelConfig) -> Any:
    """The device to load to; None (KIND_MODEL) leaves that to the module."""
    if config.kind == "MODEL":
        return None
    if config.kind != "GPU":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError(
            f"model '{config.name}' is KIND_GPU, but this torch has no CUDA: install a CUDA build, "
            "or hide the GPU with CUDA_VISIBLE_DEVICES="
        )
    return torch.device("cuda", config.device_id)


def _tensor_arguments(config: ModelConfig, module: Any) -> list[str] | None:
    """Names of the forward arguments; None for a module that takes one dict of tensors."""
    arguments = [a for a in module.forward.schema.arguments if a.type.kind() != "ClassType"]
    if [a.type.kind() for a in arguments] == ["DictType"]:
        return None
    for argument in arguments:
        if argument.type.kind() != "TensorType":
            raise ConfigError(
                f"unable to load model '{config.name}', an input of type "
                f"'{argument.type.annotation_str}' was detected in the model. Only a single input "
                "of type Dict(str, Tensor) or input(s) of type Tensor are supported"
            )
    return [argument.name for argument in arguments]


def _refuse_dtypes(config: ModelConfig, role: str, tensors: Sequence[Tensor]) -> None:
    if not tensors:
        raise ConfigError(
            f"unable to load model '{config.name}', model configuration must contain at least one "
            f"{role}, none were specified"
        )
    for tensor in tensors:
        if tensor.data_type in UNSUPPORTED:
            raise ConfigError(
                f"unsupported datatype {tensor.data_type} for {role} '{tensor.name}' for model "
                f"'{config.name}'"
            )


def _index(name: str) -> int | None:
    """N of `name__N`, read as the C++ backend reads it: after the first `__`."""
    _, separator, digits = name.partition("__")
    if not separator or (digits and not (digits.isascii() and digits.isdigit())):
        return None
    return int(digits or 0)


def _input_order(config: ModelConfig, arguments: list[str]) -> list[str]:
    """Input names in the order of the forward arguments."""
    names = [tensor.name for tensor in config.inputs]
    indices = [_index(name) for name in names]
    if all(name in arguments for name in names):
        return sorted(names, key=arguments.index)
    if None in indices or not arguments:
        return names
    if sorted(indices) != list(range(len(names))):
        raise ConfigError(
            f"unable to load model '{config.name}', the indices of its inputs {names} are not "
            f"0 to {len(names) - 1}"
        )
    return sorted(names, key=_index)


def _output_positions(config: ModelConfig) -> dict[str, int]:
    """Position of each output in what forward returns."""
    names = [tensor.name for tensor in config.outputs]
    indices = [_index(name) for name in names]
    if None in indices:
        return {name: position for position, name in enumerate(names)}
    return dict(zip(names, indices, strict=True))
