"""CUDA graphs: what a model launches for a shape, recorded at load and replayed as one launch.

A transformer launches over a hundred kernels a call, and for a few rows the GPU is done with each
before the CPU has launched the next. A replay costs the CPU one launch for all of them.

Which shapes are recorded is for the configuration to say, in Triton's own words (`optimization {
cuda { graphs: true graph_spec [ { batch_size: 8 input { … } } … ] } }`). A call takes the smallest
recording of its shape that has room for its rows. More rows than any has room for run in parts, a
shape that was not recorded as it is: then torch asks its libraries and the driver anew for each
number of rows, which was seen to take longer than the model itself.
"""

import bisect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from gateway_backend.config import ConfigError, ModelConfig

#: Runs before a recording, in which libraries make their choices and reserve their memory.
WARM_UPS = 2

Call = Callable[[Sequence[Any]], tuple[Any, ...]]
#: The inputs' shapes without their rows, in the order of the model's arguments.
Shapes = tuple[tuple[int, ...], ...]


class Recording(NamedTuple):
    """A graph, and the memory that it reads and writes."""

    rows: int
    graph: Any
    inputs: list[Any]
    outputs: tuple[Any, ...]


class CudaGraphs:
    """Runs `call` on the device, through a graph where one was recorded.

    Every recording shares one pool of memory: each call's answers hold until the next call.
    """

    def __init__(self, torch: Any, call: Call, device: Any) -> None:
        self._torch = torch
        self._call = call
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        self._recordings: dict[Shapes, list[Recording]] = {}  # the fewest rows first

    def record(self, rows: int, shapes: Shapes, dtypes: Sequence[Any]) -> None:
        """Record the call for one shape. The most rows should come first: the others fit in."""
        torch = self._torch
        inputs = [
            torch.zeros((rows, *shape), dtype=dtype, device=self._device)
            for shape, dtype in zip(shapes, dtypes, strict=True)
        ]
        with torch.cuda.device(self._device):
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_UPS):
                    self._call(inputs)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                outputs = self._call(inputs)
        recording = Recording(rows, graph, inputs, outputs)
        bisect.insort(self._recordings.setdefault(shapes, []), recording, key=lambda r: r.rows)

    def __call__(self, tensors: Sequence[Any]) -> tuple[Any, ...]:
        """Run on tensors of any memory, rows first; the answers lie on the device."""
        known = self._recordings.get(tuple(tuple(tensor.shape[1:]) for tensor in tensors))
        if known is None:
            return self._call([tensor.to(self._device) for tensor in tensors])
        rows, most = len(tensors[0]), known[-1].rows
        if rows <= most:
            return self._replay(known, tensors)
        parts = [
            [answer.clone() for answer in self._replay(known, [t[at : at + most] for t in tensors])]
            for at in range(0, rows, most)
        ]
        return tuple(map(self._torch.cat, zip(*parts, strict=True)))

    def _replay(self, known: list[Recording], tensors: Sequence[Any]) -> tuple[Any, ...]:
        rows = len(tensors[0])
        recording = known[bisect.bisect_left(known, rows, key=lambda each: each.rows)]
        # The rows beyond keep what they held: nobody reads what becomes of them.
        for target, tensor in zip(recording.inputs, tensors, strict=True):
            target[:rows].copy_(tensor, non_blocking=True)
        recording.graph.replay()
        return tuple(output[:rows] for output in recording.outputs)


def graph_shapes(config: ModelConfig, order: Sequence[str]) -> list[tuple[int, Shapes]]:
    """Return the rows and shapes that the configuration wants recorded, the most rows first.

    `order` names the inputs as `Shapes` has them. An input that a specification leaves out has its
    configured dims. Raises ConfigError for rows or dims that no request can have.
    """
    cuda = config.raw.get("optimization", {}).get("cuda", {})
    if not cuda.get("graphs"):
        return []
    dims = {tensor.name: tensor.dims for tensor in config.inputs}
    found = []
    for spec in cuda.get("graph_spec", ()):
        given = {name: tuple(map(int, shape["dim"])) for name, shape in spec["input"].items()}
        rows, shapes = spec["batch_size"], {**dims, **given}
        if not (1 <= rows <= config.max_batch_size and shapes.keys() == dims.keys()) or any(
            len(shape) != len(dims[name]) or min(shape, default=1) < 1
            for name, shape in shapes.items()
        ):
            raise ConfigError(
                f"unable to load model '{config.name}', no request has the shape of graph_spec "
                f"{{ batch_size: {rows} input: {given} }}"
            )
        found.append((rows, tuple(shapes[name] for name in order)))
    return sorted(found, reverse=True)
