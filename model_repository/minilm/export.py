"""Builds minilm/1/model.onnx from the packaged weights; `--goldens` also records golden cases.

The same weights give the same bytes: the file is built where it is served, never committed.
"""

from __future__ import annotations

import argparse
import io
import warnings
from pathlib import Path

import torch
from encoder import INPUTS, OUTPUT, WEIGHTS, publish, traced

HERE = Path(__file__).parent
#: Both lines of the preprocessor answer the same cases.
PREPROCESSORS = [HERE.parents[1] / "preprocessors" / name for name in ("minilm", "minilm_v1")]
OPSET = 17
CASES = {
    "plain": "A cat sits on the mat.",
    "question": "What is the fastest way to serve a hundred models on two cores?",
    "accents": "Crème brûlée à l’Ångström — naïve façade, ÉCOLE, İstanbul",
    "chinese": "今天天气很好,我们去公园。",
    "emoji-unknown": "Great 👍🏽 work! \u200bzero width",
    "one-letter": "a",
    "only-punctuation": "?!… --- (*)",
    "long-word": "a" * 101 + " tail",
    "truncated": "Every gateway needs a queue, and every queue needs a bound. " * 40,
    "whitespace": "  tabs\tand\nnew\r\nlines  ",
}


def onnx_bytes(checkpoint: Path) -> bytes:
    """Export the encoder with dynamic rows and tokens."""
    graph, example = traced(checkpoint)
    buffer = io.BytesIO()
    ragged = {0: "batch", 1: "tokens"}
    with warnings.catch_warnings():
        # The newer exporter embeds source paths of this machine in the file, takes seven times
        # as long and names the output twice; this one is deprecated but exact.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph,
            example,
            buffer,
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            dynamic_axes={**dict.fromkeys(INPUTS, ragged), OUTPUT: {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )
    return buffer.getvalue()


def record_goldens() -> None:
    """Write the golden cases as the independent reference computes them."""
    from gateway_preprocessor import goldens  # noqa: PLC0415 - a plain build needs neither
    from reference import Reference  # noqa: PLC0415

    reference, cases = Reference(), []
    for name, text in CASES.items():
        ids, row = reference.tokens(text), reference.embed(text)
        tensors = {"input_ids": ids, "attention_mask": ids**0}
        cases.append(
            goldens.Golden(
                name=name,
                reference="plain-Python WordPiece, one unpadded pass through the PyTorch weights",
                input=text,
                tensors={key: goldens.Tensor.of(value) for key, value in tensors.items()},
                row={OUTPUT: goldens.Tensor.of(row)},
                output={"embedding": row.tolist()},
                output_tolerance=1e-5,
            )
        )
    for folder in PREPROCESSORS:
        goldens.save(cases, folder / "src/minilm_preprocessor")
    print(f"wrote {len(cases)} golden cases")


def main() -> None:
    """Build the model file, and the golden cases if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=WEIGHTS, help="Hugging Face folder")
    parser.add_argument("--goldens", action="store_true", help="record the golden cases again")
    arguments = parser.parse_args()
    publish(HERE / "1/model.onnx", onnx_bytes(arguments.checkpoint))
    if arguments.goldens:
        record_goldens()


if __name__ == "__main__":
    main()
