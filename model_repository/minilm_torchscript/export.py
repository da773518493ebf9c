"""Builds minilm_torchscript/1/model.pt: the weights of `minilm` as TorchScript."""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "minilm"))  # one encoder for both formats

from encoder import WEIGHTS, publish, traced  # noqa: E402


def main() -> None:
    """Build the model file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=WEIGHTS, help="Hugging Face folder")
    graph, _ = traced(parser.parse_args().checkpoint)
    buffer = io.BytesIO()
    torch.jit.save(graph, buffer)
    publish(HERE / "1/model.pt", buffer.getvalue())


if __name__ == "__main__":
    main()
