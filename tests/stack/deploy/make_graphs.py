"""Writes the small graphs of the backend tests; runs in the models' environment."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper

TYPES = {
    "bool": TensorProto.BOOL,
    "uint8": TensorProto.UINT8,
    "uint16": TensorProto.UINT16,
    "uint32": TensorProto.UINT32,
    "uint64": TensorProto.UINT64,
    "int8": TensorProto.INT8,
    "int16": TensorProto.INT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "fp16": TensorProto.FLOAT16,
    "fp32": TensorProto.FLOAT,
    "fp64": TensorProto.DOUBLE,
}
Shapes = Sequence[tuple[str, int, list[Any]]]


def save(
    path: Path, nodes: list[Any], inputs: Shapes, outputs: Shapes, constants: Sequence[Any] = ()
) -> None:
    def info(tensors: Shapes) -> list[Any]:
        return [helper.make_tensor_value_info(*tensor) for tensor in tensors]

    graph = helper.make_graph(nodes, "graph", info(inputs), info(outputs), list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


def write_onnx(folder: Path) -> None:
    fp32, node = TensorProto.FLOAT, helper.make_node
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [1])
    subtract = node("Sub", ["a", "b"], ["difference"])
    total = node("ReduceSum", ["a", "axis"], ["total"], keepdims=1)
    for name, rows in (("pair", "rows"), ("fixed", 2)):
        save(
            folder / f"{name}.onnx",
            [subtract, total],
            [("a", fp32, [rows, 3]), ("b", fp32, [rows, 3])],
            [("difference", fp32, [rows, 3]), ("total", fp32, [rows, 1])],
            [axis],
        )
    save(
        folder / "wide.onnx",
        [node("Mul", ["x", "two"], ["y"])],
        [("x", fp32, ["rows", "width"])],
        [("y", fp32, ["rows", "width"])],
        [helper.make_tensor("two", fp32, [], [2.0])],
    )
    save(
        folder / "flat.onnx",
        [node("Neg", ["x"], ["y"])],
        [("x", fp32, ["rows"])],
        [("y", fp32, ["rows"])],
    )
    save(folder / "scalar.onnx", [node("Neg", ["x"], ["y"])], [("x", fp32, [])], [("y", fp32, [])])
    save(
        folder / "text.onnx",
        [node("Identity", ["x"], ["y"])],
        [("x", TensorProto.STRING, ["rows", 2])],
        [("y", TensorProto.STRING, ["rows", 2])],
    )
    save(
        folder / "types.onnx",
        [node("Identity", [f"in_{name}"], [f"out_{name}"]) for name in TYPES],
        [(f"in_{name}", kind, ["rows", 2]) for name, kind in TYPES.items()],
        [(f"out_{name}", kind, ["rows", 2]) for name, kind in TYPES.items()],
    )
    save(
        folder / "lookup.onnx",
        [node("Gather", ["table", "index"], ["value"])],
        [("index", TensorProto.INT64, ["rows", 1])],
        [("value", fp32, ["rows", 1])],
        [helper.make_tensor("table", fp32, [3], [10.0, 11.0, 12.0])],
    )


class Pair(torch.nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return a - b, a.sum(1, keepdim=True)


class Keyed(torch.nn.Module):
    def forward(self, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        return tensors["a"] - tensors["b"]


class Many(torch.nn.Module):
    def forward(self, tensors: list[torch.Tensor]) -> torch.Tensor:
        return tensors[0]


class Types(torch.nn.Module):
    def forward(
        self,
        a: torch.Tensor,
        b: torch.Tensor,
        c: torch.Tensor,
        d: torch.Tensor,
        e: torch.Tensor,
        f: torch.Tensor,
        g: torch.Tensor,
        h: torch.Tensor,
        i: torch.Tensor,
    ) -> tuple[
        torch.Tensor,
        torch.Tensor,
        torch.Tensor,
        torch.Tensor,
        torch.Tensor,
        torch.Tensor,
        torch.Tensor,
        torch.Tensor,
        torch.Tensor,
    ]:
        return a, b, c, d, e, f, g, h, i


class Lookup(torch.nn.Module):
    """Fails for an index above 2; otherwise it works enough to start torch's pool of threads."""

    def forward(self, index: torch.Tensor) -> torch.Tensor:
        ones = torch.ones(512, 512)
        return torch.tensor([10.0, 11.0, 12.0])[index] + 0 * (ones @ ones)[0, 0]


def write_torchscript(folder: Path) -> None:
    for module in (Pair(), Keyed(), Many(), Types(), Lookup()):
        torch.jit.script(module).save(folder / f"{type(module).__name__.lower()}.pt")


if __name__ == "__main__":
    target = Path(sys.argv[1])
    write_onnx(target)
    write_torchscript(target)
