"""The encoder as a graph of eight-bit matrix products, from its weights and calibrated ranges.

Weights become signed bytes with a scale for each column; activations become unsigned bytes with
one fixed scale a tensor. Attention, normalisations, pooling and sums stay float32. `QUALITY.md`
says what is lost and won, beside simpler ways.

- A channel of wide range would cost all others their resolution. So wide channels are divided by
  a factor that their weights are multiplied by (SmoothQuant, Xiao et al. 2023), and ranges are
  centred (Outlier Suppression+, Wei et al. 2023). Behind a normalisation both are gain and bias
  of a second normalisation, beside the one that the residual needs.
- A few channels reach ten times as far as others, at `[CLS]` alone: they stay float32.
- What rounding the weights does to the mean activation is taken out of the offsets.
- Fixed scales keep a row apart from its neighbours; scales of each batch would mix them.

All arithmetic is element by element, sums row after row, so every CPU builds the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx
from encoder import INPUTS, OUTPUT
from onnx import TensorProto, helper, numpy_helper
from rounding import Floats, Mask, Seen, columns, factors, lone, weighted

OPSET = 17
#: Operators of ONNX Runtime itself, which the official container's backend has, too.
RUNTIME = "com.microsoft"
PARTS = ("query", "key", "value")
#: Channels wider than so many medians are divided: behind a normalisation, attention, neurons.
WIDE_INPUT, WIDE_CONTEXT, WIDE_NEURON = 1.0, 1.5, 1.5
#: Nothing to take off a channel.
NOUGHT = np.float32(0)


class Checkpoint(NamedTuple):
    """Weights by name, as `transformers` names them, and what the weights do not tell."""

    weights: Mapping[str, Floats]
    layers: int
    heads: int
    epsilon: float


class Builder:
    """One graph in the making. Activations are flat, (rows × tokens, channels).

    That spares most reshapes, and keeps ONNX Runtime from fusing sums with normalisations, which
    is slower than either alone.
    """

    def __init__(self, checkpoint: Checkpoint, seen: Mapping[str, Seen]) -> None:
        self._weights = checkpoint.weights
        self._checkpoint = checkpoint
        self._seen = seen
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        shape = self._op("Shape", INPUTS[0])
        self._rows = self._op("Concat", shape, self._constant([-1]), axis=0)
        self._mask = self._op("Cast", INPUTS[1], to=TensorProto.INT32)

    def model(self) -> onnx.ModelProto:
        """Build the whole graph: int64 (rows, tokens) twice to float32 (rows, width)."""
        ids, mask = INPUTS
        summed, name = self._embedded(ids), "embeddings.LayerNorm"
        for layer in range(self._checkpoint.layers):
            summed = self._layer(layer, summed, name)
            name = f"encoder.layer.{layer}.output.LayerNorm"
        self._pooled(self._norm(summed, *self._affine(name)), mask)
        width = len(self._weights[f"{name}.bias"])
        graph = helper.make_graph(
            self._nodes,
            "minilm",
            [
                helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
                for name in INPUTS
            ],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", width])],
            self._constants,
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(RUNTIME, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    def _layer(self, layer: int, summed: str, norm: str) -> str:
        """Add one layer; `summed` and the result are the sums before their normalisations."""
        prefix = f"encoder.layer.{layer}."
        inner, output = f"{prefix}attention.output", f"{prefix}output"
        queries, keys, values = (self._linear(f"{prefix}attention.self.{n}") for n in PARTS)
        by = factors(self._seen[f"{inner}.dense"].reach, WIDE_CONTEXT)
        values = (values[0] / by, values[1] / by)
        matrix, offset = (np.concatenate(x, -1) for x in zip(queries, keys, values, strict=True))
        seen = self._seen[f"{prefix}attention.self.query"]
        context = self._attention(self._from_norm(summed, norm, matrix, offset, seen))
        matrix, offset = self._linear(f"{inner}.dense")
        seen = self._seen[f"{inner}.dense"].moved(NOUGHT, by)
        mixed = self._product(context, matrix * by[:, None], offset, seen, lone(seen.reach))
        summed = self._op("Add", mixed, self._norm(summed, *self._affine(norm)))

        norm = f"{inner}.LayerNorm"
        matrix, offset = self._linear(f"{prefix}intermediate.dense")
        seen = self._seen[f"{prefix}intermediate.dense"]
        neurons = self._from_norm(summed, norm, matrix, offset, seen)
        neurons = self._op("Gelu", neurons, domain=RUNTIME)
        matrix, offset = self._linear(f"{output}.dense")
        result = self._from_neurons(neurons, matrix, offset, self._seen[f"{output}.dense"])
        return self._op("Add", result, self._norm(summed, *self._affine(norm)))

    def _embedded(self, ids: str) -> str:
        """Look the tokens up: rows of bytes with a scale each, a quarter of the memory."""
        table = self._weights["embeddings.word_embeddings.weight"]
        scales = np.abs(table).max(1, keepdims=True) / 127
        rounded = self._constant(np.rint(table / scales), np.int8)
        words = self._op("Cast", self._op("Gather", rounded, ids), to=TensorProto.FLOAT)
        words = self._op("Mul", words, self._op("Gather", self._constant(scales), ids))
        positions = (
            self._weights["embeddings.position_embeddings.weight"]
            + self._weights["embeddings.token_type_embeddings.weight"][0]
        )
        tokens = self._op("Shape", ids, start=1, end=2)
        first, axis = self._constant([0]), self._constant([0])
        placed = self._op("Slice", self._constant(positions), first, tokens, axis)
        summed = self._op("Add", words, placed)
        return self._op("Reshape", summed, self._constant([-1, positions.shape[1]]))

    def _from_norm(self, summed: str, norm: str, matrix: Floats, offset: Floats, seen: Seen) -> str:
        """Multiply a normalisation's result: centred and divided, by a norm of its own."""
        apart = lone(seen.reach)
        centre = np.where(apart, 0, (seen.low + seen.high) / 2).astype(np.float32)
        by = factors(seen.moved(centre, np.float32(1)).reach, WIDE_INPUT)
        by = np.where(apart, 1, by).astype(np.float32)
        gain, bias = self._affine(norm)
        return self._product(
            self._norm(summed, gain / by, (bias - centre) / by),
            matrix * by[:, None],
            offset + weighted(centre, matrix),
            seen.moved(centre, by),
            apart,
        )

    def _from_neurons(self, neurons: str, matrix: Floats, offset: Floats, seen: Seen) -> str:
        apart = lone(seen.reach)
        by = np.where(apart, 1, factors(seen.reach, WIDE_NEURON)).astype(np.float32)
        divided = self._op("Mul", neurons, self._constant(1 / by))
        return self._product(divided, matrix * by[:, None], offset, seen.moved(NOUGHT, by), apart)

    def _product(self, values: str, matrix: Floats, offset: Floats, seen: Seen, apart: Mask) -> str:
        """Multiply (…, inputs) floats by a matrix in bytes, but the channels `apart` in float32.

        What rounding the matrix does to the mean input is taken off the offset.
        """
        exact = np.where(apart[:, None], 0, matrix).astype(np.float32)
        rounded, scales = columns(exact)
        step, zero = (self._constant(x) for x in seen.only(~apart).step())
        result = self._op(
            "MatMulIntegerToFloat",
            self._op("QuantizeLinear", values, step, zero),
            self._constant(rounded),
            step,
            self._constant(scales),
            zero,
            self._constant(np.zeros(len(scales), np.int8)),
            self._constant(offset + weighted(seen.mean, exact - rounded * scales)),
            domain=RUNTIME,
        )
        if not apart.any():
            return result
        rest = self._op("Gather", values, self._constant(np.flatnonzero(apart)), axis=1)
        rest = self._op("MatMul", rest, self._constant(matrix[apart]))
        return self._op("Add", result, rest)

    def _attention(self, projected: str) -> str:
        """Mix tokens that the mask admits: flat (…, 3 × width) to flat (…, width)."""
        width = len(self._weights["embeddings.LayerNorm.bias"])
        shaped = self._op("Reshape", projected, self._rows)
        parts = self._ops("Split", shaped, self._constant([width] * 3), axis=2, outputs=3)
        mixed = self._op(
            "MultiHeadAttention",
            *parts,
            "",
            self._mask,
            domain=RUNTIME,
            num_heads=self._checkpoint.heads,
        )
        return self._op("Reshape", mixed, self._constant([-1, width]))

    def _pooled(self, hidden: str, mask: str) -> None:
        """The mean of the admitted tokens at unit length, as `encoder.Encoder.forward` has it."""
        axis = self._constant([1])
        hidden = self._op("Reshape", hidden, self._rows)
        weights = self._op("Cast", mask, to=TensorProto.FLOAT)
        weights = self._op("Unsqueeze", weights, self._constant([2]))
        total = self._op("ReduceSum", self._op("Mul", hidden, weights), axis, keepdims=0)
        count = self._op("ReduceSum", weights, axis, keepdims=0)
        mean = self._op("Div", total, self._op("Clip", count, self._constant(1e-9, np.float32)))
        norm = self._op("ReduceL2", mean, axes=[1], keepdims=1)
        norm = self._op("Clip", norm, self._constant(1e-12, np.float32))
        self._nodes.append(helper.make_node("Div", [mean, norm], [OUTPUT]))

    def _affine(self, name: str) -> tuple[Floats, Floats]:
        return self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]

    def _linear(self, name: str) -> tuple[Floats, Floats]:
        """Return a linear layer's matrix (inputs, outputs) and its offsets (outputs,)."""
        return self._weights[f"{name}.weight"].T, self._weights[f"{name}.bias"]

    def _norm(self, summed: str, gain: Floats, bias: Floats) -> str:
        return self._op(
            "LayerNormalization",
            summed,
            self._constant(gain),
            self._constant(bias),
            epsilon=self._checkpoint.epsilon,
        )

    def _constant(self, value: Any, dtype: Any = None) -> str:
        name = f"constant_{len(self._constants)}"
        array = np.array(value, dtype, order="C")
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def _op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        return self._ops(kind, *inputs, outputs=1, **attributes)[0]

    def _ops(self, kind: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        names = [f"{kind}_{len(self._nodes)}_{index}" for index in range(outputs)]
        self._nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names
