"""How a model is placed on the cores: the few values of a `config.pbtxt` that `gateway tune` edits.

Edits are made in the text, so that comments and form stay, and believed only when the parsed
result says what was meant.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

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

_COMMENT = re.compile(r"""("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')|#[^\n]*""")
_GROUP = re.compile(r"\binstance_group\s*:?\s*\[?\s*\{(?P<body>[^{}]*)\}")
_COUNT = re.compile(r"\bcount\s*:\s*(?P<value>\d+)")
_BATCHING = re.compile(r"\bdynamic_batching\s*:?\s*\{")
_DELAY = re.compile(r"\bmax_queue_delay_microseconds\s*:\s*(?P<value>\d+)")
_NAME = re.compile(r"(?m)^\s*name\s*:\s*(?P<value>\"[^\"\n]*\"|'[^'\n]*')")


class Placement(NamedTuple):
    """Instances, threads of each, and microseconds that Triton waits to merge calls.

    None threads: the file names none, so the server's default holds.
    """

    instances: int
    threads: int | None
    delay_us: int


class Placed(NamedTuple):
    """A model's `config.pbtxt`: where, its text, and what it says about the placement."""

    path: Path
    text: str
    backend: str
    max_batch_size: int
    groups: int
    on_cpu: bool
    placement: Placement

    @property
    def model(self) -> str:
        """The model's name: its folder's."""
        return self.path.parent.name


def read(folder: Path) -> Placed:
    """Read a model folder's configuration. Raises ConfigError where there is none to read."""
    path = folder / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    config = parse(path, text)
    backend = config.backend or _PLATFORMS.get(config.platform, config.platform)
    if not backend:
        found = {kind for name, kind in _FILES.items() if any(folder.glob(f"*/{name}"))}
        backend = found.pop() if len(found) == 1 else "unknown"
    groups = config.instance_group
    key = THREADS.get(backend, "")
    given = config.parameters[key].string_value if key in config.parameters else ""
    if given and not given.isdigit():
        raise ConfigError(f"{path}: parameter {key} is {given!r} instead of a number")
    instances = sum(max(1, group.count) for group in groups) if groups else 1
    threads = int(given) if given and int(given) else None
    delay = config.dynamic_batching.max_queue_delay_microseconds
    on_cpu = all(group.kind in _CPU for group in groups)
    placement = Placement(instances, threads, delay)
    return Placed(path, text, backend, config.max_batch_size, len(groups), on_cpu, placement)


def written(placed: Placed, wanted: Placement, name: str | None = None) -> str:
    """Return the configuration's text with another placement, and another name where one is given.

    Only values change; a key that is missing is added. Raises ConfigError where the file's form
    is too unusual to be edited.
    """
    edit = _Edit(placed.text)
    now = placed.placement
    if wanted.instances != now.instances and placed.groups > 1:
        raise ConfigError(f"{placed.path}: has {placed.groups} instance groups; edit it by hand")
    if wanted.instances != now.instances:
        edit.instances(wanted.instances)
    if wanted.threads is not None and wanted.threads != now.threads:
        edit.threads(THREADS[placed.backend], wanted.threads)
    if wanted.delay_us != now.delay_us:
        edit.delay(wanted.delay_us)
    if name is not None:
        edit.value(_NAME, f'"{name}"')
    if parse(placed.path, edit.text) != _meant(placed, wanted, name):
        raise ConfigError(f"{placed.path}: its form is too unusual to be edited; edit it by hand")
    return edit.text


class _Edit:
    """The text under edit. Places are found in `plain`, where comments are blanks."""

    def __init__(self, text: str) -> None:
        self.text = text

    @property
    def plain(self) -> str:
        return _COMMENT.sub(lambda found: found[1] or " " * len(found[0]), self.text)

    def instances(self, count: int) -> None:
        group = _GROUP.search(self.plain)
        if group is None:
            self.append(f"instance_group [ {{ kind: KIND_CPU count: {count} }} ]")
        elif value := _COUNT.search(self.plain, *group.span("body")):
            self.replace(value.span("value"), str(count))
        else:
            self.replace((group.end("body"), group.end("body")), f" count: {count} ")

    def threads(self, key: str, count: int) -> None:
        quoted = rf"[\"']{key}[\"']\s*,?\s*value\s*:?\s*\{{\s*string_value\s*:\s*"
        if not self.value(re.compile(quoted + r"(?P<value>\"\d*\"|'\d*')"), f'"{count}"'):
            self.append(f'parameters {{ key: "{key}" value {{ string_value: "{count}" }} }}')

    def delay(self, microseconds: int) -> None:
        value = f"max_queue_delay_microseconds: {microseconds}"
        if self.value(_DELAY, str(microseconds)):
            return
        if batching := _BATCHING.search(self.plain):
            self.replace((batching.end(), batching.end()), f" {value} ")
        else:
            self.append(f"dynamic_batching {{ {value} }}")

    def value(self, pattern: re.Pattern[str], value: str) -> bool:
        """Replace the one value that the pattern finds; False where there is none."""
        found = pattern.search(self.plain)
        if found:
            self.replace(found.span("value"), value)
        return bool(found)

    def replace(self, span: tuple[int, int], value: str) -> None:
        self.text = self.text[: span[0]] + value + self.text[span[1] :]

    def append(self, line: str) -> None:
        self.text = f"{self.text.rstrip()}\n{line}\n"


def _meant(placed: Placed, wanted: Placement, name: str | None) -> Any:
    config = parse(placed.path, placed.text)
    if wanted.instances != placed.placement.instances:
        if not config.instance_group:
            config.instance_group.add(kind=model_config_pb2.ModelInstanceGroup.KIND_CPU)
        config.instance_group[0].count = wanted.instances
    if wanted.threads is not None and wanted.threads != placed.placement.threads:
        config.parameters[THREADS[placed.backend]].string_value = str(wanted.threads)
    if wanted.delay_us != placed.placement.delay_us:
        config.dynamic_batching.max_queue_delay_microseconds = wanted.delay_us
    if name is not None:
        config.name = name
    return config
