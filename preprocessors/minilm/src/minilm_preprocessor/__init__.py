"""Text to tokens and sentence embeddings for all-MiniLM-L6-v2."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Annotated, Any

import msgspec
import numpy as np
from gateway_preprocessor import Example, NoParameters, Prepared, Preprocessor, Row, TensorSpec
from tokenizers import Tokenizer

#: Tokens kept, `[CLS]` and `[SEP]` included: the model's own `max_seq_length`.
MAX_TOKENS = 256
#: Characters looked at first: enough for 256 tokens of any usual text.
FIRST_CHARACTERS = 4096
DIMENSIONS = 384
DECIMALS = 8

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
        """Load the tokenizer from the wheel."""
        text = (resources.files(__package__) / "tokenizer.json").read_text(encoding="utf-8")
        self._tokenizer = Tokenizer.from_str(text)
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.no_padding()

    def preprocess(
        self, instances: Sequence[str], parameters: Sequence[NoParameters]
    ) -> list[Prepared]:
        """Tokenise; `input_ids` and `attention_mask` have one entry per token."""
        del parameters  # the model takes none
        # One encode per text: encode_batch would start a thread pool of its own, as large as the
        # machine, inside each worker thread.
        tokens = [np.array(self._ids(text), np.int64) for text in instances]
        return [Prepared({"input_ids": ids, "attention_mask": np.ones_like(ids)}) for ids in tokens]

    def _ids(self, text: str) -> list[int]:
        """Tokenise as much of the text as fills the model; WordPiece never looks past a space."""
        end = FIRST_CHARACTERS
        while end < len(text):
            cut = max(text.rfind(space, 0, end) for space in " \n\t")
            ids = self._tokenizer.encode(text[:cut]).ids if cut > 0 else []
            if len(ids) == MAX_TOKENS:
                return ids
            end *= 4
        return self._tokenizer.encode(text).ids

    def postprocess(self, rows: Sequence[Row], contexts: Sequence[Any]) -> list[Sentence]:
        """Hand the pooled, normalised embedding on."""
        del contexts  # nothing to remember between the two halves
        # A float32 below 1 has no more than these decimals; written as a float64 in full, each
        # would take twice the bytes.
        found = [row["embedding__0"].astype(np.float64).round(DECIMALS) for row in rows]
        return [Sentence(embedding.tolist()) for embedding in found]
