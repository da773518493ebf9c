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
    publish(HERE / "1/model.pt", without_debug(buffer.getvalue()))


def without_debug(content: bytes) -> bytes:
    """Leave out TorchScript's debug records, which hold this machine's paths."""
    reader = torch._C.PyTorchFileReader(io.BytesIO(content))  # noqa: SLF001 - no public way
    buffer = io.BytesIO()
    writer = torch._C.PyTorchFileWriter(buffer)  # noqa: SLF001
    for name in reader.get_all_records():
        if not name.endswith(".debug_pkl") and name not in {"version", ".data/serialization_id"}:
            record = reader.get_record(name)
            writer.write_record(name, record, len(record))
    writer.write_end_of_file()
    return buffer.getvalue()


if __name__ == "__main__":
    main()
