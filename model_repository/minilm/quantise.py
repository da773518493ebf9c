"""Builds minilm/2/model.onnx, the encoder in eight bits; `--calibrate` observes its ranges again.

The ranges are committed (`calibration.npz`), since no two kinds of CPU compute them to the last
bit: from them and the packaged weights every CPU builds the same bytes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from encoder import WEIGHTS, Encoder, publish
from graph import Builder, Checkpoint, Seen
from numpy.typing import NDArray
from texts import CALIBRATION, texts
from tokenizers import Tokenizer

HERE = Path(__file__).parent
RANGES = HERE / "calibration.npz"
MAX_TOKENS = 256
#: Paragraphs, docstrings, messages and translations to calibrate with.
COUNTS = (600, 100, 150, 300)


def checkpoint(encoder: Encoder) -> Checkpoint:
    """Take the weights and the shape out of an encoder."""
    config = encoder.bert.config
    weights = {name: tensor.numpy() for name, tensor in encoder.bert.state_dict().items()}
    return Checkpoint(
        weights, config.num_hidden_layers, config.num_attention_heads, config.layer_norm_eps
    )


def observed(encoder: Encoder, tokenizer: Tokenizer) -> dict[str, NDArray[np.float16]]:
    """Run the texts, one at a time; returns each linear layer's input, as `Seen`: (3, channels).

    float16 rounds away most of what differs from CPU to CPU.
    """
    rows: dict[str, list[torch.Tensor]] = {}

    def note(name: str, values: torch.Tensor) -> None:
        low, high = torch.aminmax(values, dim=0)
        rows.setdefault(name, []).append(torch.stack([low, high, values.sum(0)]))

    hooks = [
        module.register_forward_pre_hook(lambda _, given, name=name: note(name, given[0][0]))
        for name, module in encoder.bert.named_modules()
        if isinstance(module, torch.nn.Linear) and not name.endswith((".key", ".value"))
    ]
    tokens = 0
    with torch.no_grad():
        for kind in texts(CALIBRATION, calibration=True, counts=COUNTS):
            for text in kind:
                ids = torch.tensor([tokenizer.encode(text).ids])
                encoder(ids, torch.ones_like(ids))
                tokens += ids.shape[1]
    for hook in hooks:
        hook.remove()
    found = {name: torch.stack(parts).double().numpy() for name, parts in rows.items()}
    return {
        name: np.stack([low.min(0), high.max(0), total.sum(0) / tokens]).astype(np.float16)
        for name, (low, high, total) in ((n, x.swapaxes(0, 1)) for n, x in found.items())
    }


def calibrated(folder: Path = WEIGHTS) -> tuple[Checkpoint, dict[str, Seen]]:
    """Return what the graph is built from: a checkpoint, and what calibration saw."""
    with np.load(RANGES) as found:
        seen = {name: Seen(*found[name].astype(np.float32)) for name in found.files}
    return checkpoint(Encoder(folder)), seen


def main() -> None:
    """Build the model file, and observe the ranges before if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=WEIGHTS, help="Hugging Face folder")
    parser.add_argument("--calibrate", action="store_true", help="observe the ranges again")
    arguments = parser.parse_args()
    if arguments.calibrate:
        tokenizer = Tokenizer.from_file(str(arguments.checkpoint / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(MAX_TOKENS)
        np.savez_compressed(RANGES, **observed(Encoder(arguments.checkpoint).eval(), tokenizer))
    model = Builder(*calibrated(arguments.checkpoint)).model()
    publish(HERE / "2/model.onnx", model.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
