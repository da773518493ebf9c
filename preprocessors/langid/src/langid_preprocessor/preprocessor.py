"""`LangId`: text in, code points to the model, language probabilities back, labels out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from typing import Annotated

import msgspec
import numpy as np
from gateway_preprocessor import Example, Prepared, Preprocessor, Row, TensorSpec

from langid_preprocessor.text import character_classes, codepoints

#: The languages that the model knows, in the order of its output.
LABELS: tuple[str, ...] = tuple(
    json.loads(resources.files(__package__).joinpath("labels.json").read_text("utf-8"))
)
#: ISO 639-2 for "undetermined": the answer to a text without letters, which has no language.
UNDETERMINED = "und"


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parameters of a request."""

    top_k: Annotated[
        int, msgspec.Meta(ge=1, le=len(LABELS), description="how many languages to return")
    ] = 3


class Label(msgspec.Struct, frozen=True):
    """A language and its probability."""

    label: Annotated[
        str, msgspec.Meta(description="ISO 639 code; `und` for a text without letters")
    ]
    score: Annotated[float, msgspec.Meta(description="probability, 0 to 1")]


class Languages(msgspec.Struct, frozen=True):
    """The result: the most probable languages, best first."""

    labels: list[Label]


class LangId(Preprocessor[str, Parameters, Languages]):
    """Identifies the language of a text."""

    input_type = Annotated[
        str, msgspec.Meta(min_length=1, description="the text whose language is asked for")
    ]
    parameters_type = Parameters
    output_type = Languages
    tensors = (TensorSpec("codepoints", "int32", (-1,), pad=0),)
    outputs = (TensorSpec("scores__0", "float32", (len(LABELS),)),)
    examples = (
        Example("Wo ist der nächste Bahnhof, bitte?", summary="the three most probable"),
        Example("Où est la gare ?", {"top_k": 1}, "only the best"),
        Example("12345", summary="no letters: undetermined"),
    )

    def __init__(self) -> None:
        self._classes = character_classes()

    def preprocess(
        self, instances: Sequence[str], parameters: Sequence[Parameters]
    ) -> list[Prepared]:
        """Send the normalised text; the context is `top_k`, or None for a text without letters."""
        prepared = []
        for text, asked in zip(instances, parameters, strict=True):
            codes = codepoints(text, self._classes)
            letters = len(codes) > 1
            prepared.append(Prepared({"codepoints": codes}, asked.top_k if letters else None))
        return prepared

    def postprocess(self, rows: Sequence[Row], contexts: Sequence[int | None]) -> list[Languages]:
        """Name the `top_k` best; ties keep the order of `LABELS`."""
        results = []
        for row, top_k in zip(rows, contexts, strict=True):
            if top_k is None:
                results.append(Languages([Label(UNDETERMINED, 1.0)]))
                continue
            scores = row["scores__0"]
            best = np.argsort(-scores, kind="stable")[:top_k]
            results.append(Languages([Label(LABELS[i], float(scores[i])) for i in best]))
        return results
