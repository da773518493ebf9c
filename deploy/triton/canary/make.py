"""Writes the canary's model; run it with the environment that holds onnx.

The canary is what the launcher asks first of a Triton that it has just started. Its answer is known
beforehand: `scaled = 2·x + 1` and `row_sum`, the sum over a row. Two outputs of different shape and
an intermediate batch of rows are what a broken tensor path gets wrong.
"""

from pathlib import Path

import onnx
from onnx import TensorProto, helper

WIDTH = 3


def build() -> onnx.ModelProto:
    """The graph, with versions that every ONNX Runtime of the last years can read."""
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["x", "two"], ["doubled"]),
            helper.make_node("Add", ["doubled", "one"], ["scaled"]),
            helper.make_node("ReduceSum", ["x", "axis"], ["row_sum"], keepdims=1),
        ],
        "gateway_canary",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])],
        [
            helper.make_tensor_value_info("scaled", TensorProto.FLOAT, ["batch", WIDTH]),
            helper.make_tensor_value_info("row_sum", TensorProto.FLOAT, ["batch", 1]),
        ],
        [
            helper.make_tensor("two", TensorProto.FLOAT, [], [2.0]),
            helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
            helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


if __name__ == "__main__":
    path = Path(__file__).parent / "gateway_canary" / "1" / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(build().SerializeToString(deterministic=True))
