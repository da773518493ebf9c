"""Ways to run the encoder that `quality.py` compares: releases, libraries' own, and parts left out.

Each way is the bytes of a file, loaded as Triton loads it: one thread, in this process.
"""

from __future__ import annotations

import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import graph
import numpy as np
import onnx
import onnxruntime
import rounding
import torch
from encoder import OUTPUT, WEIGHTS, Encoder, traced
from graph import Builder
from measure import Floats, Integers, Run
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.optimizer import optimize_model
from quantise import calibrated
from rounding import Mask, Seen, columns

FLOAT = Path(__file__).parent / "1/model.onnx"
EIGHT_BITS = Path(__file__).parent / "2/model.onnx"


class RoundedWeights(Builder):
    """The graph of release 3 with its bytes as weights, but all activations in float32."""

    def _product(self, values: str, matrix: Floats, offset: Floats, seen: Seen, apart: Mask) -> str:
        exact = np.where(apart[:, None], 0, matrix).astype(np.float32)
        rounded, scales = columns(exact)
        weights = np.where(apart[:, None], matrix, rounded * scales)
        offset = offset + rounding.weighted(seen.mean, exact - rounded * scales)
        product = self._op("MatMul", values, self._constant(weights, np.float32))
        return self._op("Add", product, self._constant(offset))


def runtime(content: bytes) -> Run:
    """Run an ONNX file with one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])

    def run(ids: Integers, mask: Integers) -> Floats:
        (found,) = session.run([OUTPUT], {"input_ids": ids, "attention_mask": mask})
        return found

    return run


def libtorch(content: bytes) -> Run:
    """Run a TorchScript file; the caller has set the threads, which are the process's."""
    module = torch.jit.load(io.BytesIO(content)).eval()

    def run(ids: Integers, mask: Integers) -> Floats:
        with torch.inference_mode():
            found: Floats = module(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
        return found

    return run


def libraries() -> dict[str, bytes]:
    """What ONNX Runtime's own tools make of the float32 file."""
    with tempfile.TemporaryDirectory() as folder, _quietly():
        ready, eight = Path(folder) / "ready.onnx", Path(folder) / "eight.onnx"
        # Both tools look for weights among the initialisers, where this step puts them.
        quant_pre_process(FLOAT, ready, skip_symbolic_shape=True, skip_onnx_shape=True)
        fused = optimize_model(
            str(ready), model_type="bert", num_heads=12, hidden_size=384, opt_level=0
        )
        quantize_dynamic(
            ready,
            eight,
            weight_type=QuantType.QInt8,
            per_channel=True,
            extra_options={"MatMulConstBOnly": True},
        )
        return {
            "float32, fused by the transformer optimiser": fused.model.SerializeToString(),
            "dynamic quantisation, a scale a column": eight.read_bytes(),
        }


def parts() -> dict[str, bytes]:
    """Release 3 with one of its measures left out, and with its weights alone in bytes."""
    found = {"weights in bytes, activations float32": _bytes(RoundedWeights(*calibrated()))}
    with patch.object(rounding, "LONE", np.inf):
        found["no channel left in float32"] = _bytes(Builder(*calibrated()))
    wide = dict.fromkeys(("WIDE_INPUT", "WIDE_CONTEXT", "WIDE_NEURON"), np.inf)
    with patch.multiple(graph, **wide):
        found["wide channels not divided"] = _bytes(Builder(*calibrated()))
    return found


def torchscripts() -> dict[str, bytes]:
    """The ways TorchScript has; the second is what `minilm_torchscript` serves."""
    frozen, example = traced(WEIGHTS)
    encoder = Encoder(WEIGHTS).eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = torch.jit.trace(encoder, example)
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            mixed = torch.jit.freeze(torch.jit.trace(encoder, example))
        halves = torch.jit.freeze(torch.jit.trace(_Halves().eval(), example))
        ways = {
            "traced": plain,
            "frozen": frozen,
            "`optimize_for_inference`": torch.jit.optimize_for_inference(plain),
            "bf16 by autocast, frozen": mixed,
            "bf16 throughout, frozen": halves,
        }
        return {name: _saved(module) for name, module in ways.items()}


class _Halves(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder(WEIGHTS).bfloat16()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        found = self.encoder(input_ids, attention_mask).float()
        return torch.nn.functional.normalize(found, dim=-1)  # bf16 leaves its length inexact


def _bytes(builder: Builder) -> bytes:
    model: onnx.ModelProto = builder.model()
    return model.SerializeToString()


def _saved(module: torch.jit.ScriptModule) -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    return buffer.getvalue()


@contextmanager
def _quietly() -> Iterator[None]:
    """Leave out what the tools tell of each of their steps."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
