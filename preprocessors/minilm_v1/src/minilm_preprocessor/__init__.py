"""Text to tokens and sentence embeddings for all-MiniLM-L6-v2, on the transformers 4 line."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Annotated, Any

import msgspec
import numpy as np
from gateway_preprocessor import Example, NoParameters, Prepared, Preprocessor, Row, TensorSpec
from transformers import BertTokenizerFast

#: Tokens kept, `[CLS]` and `[SEP]` included: the model's own `max_seq_length`.
MAX_TOKENS = 256
DIMENSIONS = 384

Text = Annotated[
    str,
    msgspec.Meta(min_length=1, description="A text; what exceeds 256 tokens is cut off."),
]


class Sentence(msgspec.Struct, frozen=True):
    """A sentence embedding of unit length."""

    embedding: Annotated[list[float], msgspec.Meta(min_length=DIMENSIONS, max_length=DIMENSIONS)]


class MiniLM(Preprocessor[str, NoParameters, Sentence]):
    """WordPiece tokens in, one embedding of 384 floats out."""

    input_type = Text
    output_type = Sentence
    tensors = (
        TensorSpec("input_ids", "int64", (-1,), pad=0),
        TensorSpec("attention_mask", "int64", (-1,), pad=0),
    )
    outputs = (TensorSpec("embedding__0", "float32", (DIMENSIONS,)),)
    examples = (
        Example("A cat sits on the mat.", summary="one sentence"),
        Example("Wie wird das Wetter morgen?", summary="any language the vocabulary can spell"),
    )

    def __init__(self) -> None:
        """Build the tokenizer from the wheel's vocabulary."""
        with resources.as_file(resources.files(__package__) / "vocab.txt") as vocabulary:
            self._tokenizer = BertTokenizerFast(str(vocabulary), do_lower_case=True)
        # The first call sets truncation, which later ones share: threads must find it set.
        self._ids("")

    def preprocess(
        self, instances: Sequence[str], parameters: Sequence[NoParameters]
    ) -> list[Prepared]:
        """Tokenise; `input_ids` and `attention_mask` have one entry per token."""
        del parameters  # the model takes none
        tokens = [np.array(self._ids(text), np.int64) for text in instances]
        return [Prepared({"input_ids": ids, "attention_mask": np.ones_like(ids)}) for ids in tokens]

    def postprocess(self, rows: Sequence[Row], contexts: Sequence[Any]) -> list[Sentence]:
        """Hand the pooled, normalised embedding on."""
        del contexts  # nothing to remember between the two halves
        return [Sentence(row["embedding__0"].tolist()) for row in rows]

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, truncation=True, max_length=MAX_TOKENS).input_ids
        return ids
