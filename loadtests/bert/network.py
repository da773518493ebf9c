"""BERT as published (Devlin et al. 2018), with a head of two classes, in a form TorchScript takes.

The weights are random, from a seed: for speed only. What costs time is all there: embeddings,
post-norm encoder layers, the pooler, the head.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

CLASSES = 2
SEED = 0
#: Of the embeddings. A linear layer's is 1/√inputs: it keeps the scale, and texts differ in scores.
DEVIATION = 0.02


class Size(NamedTuple):
    """What a BERT is made of; the vocabulary is WordPiece's of bert-base-uncased."""

    layers: int
    width: int
    heads: int
    vocabulary: int = 30_522
    positions: int = 512


#: base: Devlin et al.'s. small: for a hundred of them at once (`loadtests.zoo`). tiny: for tests.
SIZES = {"base": Size(12, 768, 12), "small": Size(6, 128, 4), "tiny": Size(2, 64, 2)}


class Layer(nn.Module):
    """Self-attention and feed-forward, each added to its input and normalised."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads = size.heads
        self.query_key_value = nn.Linear(size.width, 3 * size.width)
        self.mixed = nn.Linear(size.width, size.width)
        self.norm = nn.LayerNorm(size.width, 1e-12)
        self.wide = nn.Linear(size.width, 4 * size.width)
        self.narrow = nn.Linear(4 * size.width, size.width)
        self.last_norm = nn.LayerNorm(size.width, 1e-12)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(rows, tokens, width) to the same; `mask` (rows, 1, 1, tokens) is added to scores."""
        rows, tokens, width = hidden.shape
        parts = self.query_key_value(hidden).view(rows, tokens, 3, self.heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        attended = attended.transpose(1, 2).reshape(rows, tokens, width)
        hidden = self.norm(hidden + self.mixed(attended))
        return self.last_norm(hidden + self.narrow(F.gelu(self.wide(hidden))))


class Bert(nn.Module):
    """Token ids to the probabilities of two classes."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.words = nn.Embedding(size.vocabulary, size.width)
        self.places = nn.Embedding(size.positions, size.width)
        self.segments = nn.Parameter(torch.zeros(size.width))  # one segment: always the first
        self.norm = nn.LayerNorm(size.width, 1e-12)
        self.layers = nn.ModuleList([Layer(size) for _ in range(size.layers)])
        self.pooler = nn.Linear(size.width, size.width)
        self.head = nn.Linear(size.width, CLASSES)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Two int64 (rows, tokens) to float32 (rows, 2)."""
        tokens = input_ids.size(1)
        hidden = self.words(input_ids) + self.places.weight[:tokens] + self.segments
        hidden = self.norm(hidden)
        mask = (1 - attention_mask[:, None, None, :]).to(hidden.dtype) * -1e4  # in fp16's range
        for layer in self.layers:
            hidden = layer(hidden, mask)
        pooled = torch.tanh(self.pooler(hidden[:, 0]))
        return torch.softmax(self.head(pooled).float(), -1)


def seeded(size: Size, seed: int = SEED) -> Bert:
    """Build one with random weights, the same each time."""
    torch.manual_seed(seed)
    model = Bert(size)
    for name, weights in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(weights)
        elif weights.dim() > 1:
            embeds = weights.size(0) > 4 * size.width or "places" in name
            nn.init.normal_(weights, std=DEVIATION if embeds else weights.size(1) ** -0.5)
    model.eval()
    return model
