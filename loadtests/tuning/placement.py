"""How a model is placed on the cores: the few values of a `config.pbtxt` that tuning is about."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from gateway.triton.configs import ConfigError, parse

FILE = "config.pbtxt"
ONNX, TORCH = "onnxruntime", "pytorch"
#: The parameter that holds the threads of one inference. Torch's is one for the whole server in
#: the container: the model loaded last decides it for all.
THREADS = {ONNX: "intra_op_thread_count", TORCH: "INTRA_OP_THREAD_COUNT"}
_PLATFORMS = {"onnxruntime_onnx": ONNX, "pytorch_libtorch": TORCH}
_FILES = {"model.onnx": ONNX, "model.pt": TORCH}
_CPU = (
    model_config_pb2.ModelInstanceGroup.KIND_CPU,
    model_config_pb2.ModelInstanceGroup.KIND_AUTO,
)


class Placement(NamedTuple):
    """Instances, threads of each, and microseconds that Triton waits to merge calls.

    None threads: the file names none, so the server's default holds.
    """

    instances: int
    threads: int | None
    delay_us: int


@dataclass(frozen=True, eq=False)
class Placed:
    """A model's `config.pbtxt`: where it is, what it says, and what that means for the cores."""

    path: Path
    config: model_config_pb2.ModelConfig
    backend: str
    on_cpu: bool
    placement: Placement

    @property
    def model(self) -> str:
        """The model's name: its folder's."""
        return self.path.parent.name

    @property
    def max_batch_size(self) -> int:
        """The most rows that Triton takes at once."""
        return int(self.config.max_batch_size)


def read(folder: Path) -> Placed:
    """Read a model folder's configuration. Raises ConfigError where there is none to read."""
    path = folder / FILE
    try:
        config = parse(path, path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    backend = config.backend or _PLATFORMS.get(config.platform, config.platform)
    if not backend:
        found = {kind for name, kind in _FILES.items() if any(folder.glob(f"*/{name}"))}
        backend = found.pop() if len(found) == 1 else "unknown"
    groups = config.instance_group
    key = THREADS.get(backend, "")
    given = config.parameters[key].string_value if key in config.parameters else ""
    if given and not given.isdigit():
        raise ConfigError(f"{path}: parameter {key} is {given!r}, not a number")
    instances = sum(max(1, group.count) for group in groups) if groups else 1
    threads = int(given) if given and int(given) else None
    placement = Placement(instances, threads, config.dynamic_batching.max_queue_delay_microseconds)
    on_cpu = all(group.kind in _CPU for group in groups)
    return Placed(path, config, backend, on_cpu, placement)


def configured(placed: Placed, wanted: Placement, name: str) -> str:
    """Return the text of the whole configuration with another name and placement.

    Raises ConfigError where several instance groups share the instances.
    """
    config = model_config_pb2.ModelConfig()
    config.CopyFrom(placed.config)
    config.name = name
    if wanted.instances != placed.placement.instances and len(config.instance_group) > 1:
        count = len(config.instance_group)
        raise ConfigError(f"{placed.path}: {count} instance groups are more than tuning can change")
    if not config.instance_group:
        config.instance_group.add(kind=model_config_pb2.ModelInstanceGroup.KIND_CPU)
    if len(config.instance_group) == 1:
        config.instance_group[0].count = wanted.instances
    if wanted.threads is not None:
        config.parameters[THREADS[placed.backend]].string_value = str(wanted.threads)
    config.dynamic_batching.max_queue_delay_microseconds = wanted.delay_us
    return str(text_format.MessageToString(config))


def changes(placed: Placed, wanted: Placement) -> str:
    """Return the fields of the configuration that differ, as text; empty where none does."""
    now, part = placed.placement, model_config_pb2.ModelConfig()
    if wanted.instances != now.instances:
        kind = placed.config.instance_group[0].kind if placed.config.instance_group else _CPU[0]
        part.instance_group.add(kind=kind, count=wanted.instances)
    if wanted.threads is not None and wanted.threads != now.threads:
        part.parameters[THREADS[placed.backend]].string_value = str(wanted.threads)
    if wanted.delay_us != now.delay_us:
        part.dynamic_batching.max_queue_delay_microseconds = wanted.delay_us
    return str(text_format.MessageToString(part)).rstrip()
