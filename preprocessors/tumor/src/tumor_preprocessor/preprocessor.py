"""One record of measurements → `features` (float32, 30); `probabilities` (float32, 2) → a label.

Everything that can be wrong with a record is declared in its type, so the contract's decoder
refuses it and names each field; `preprocess` only puts the numbers in the model's order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from gateway_preprocessor import Example, NoParameters, Prepared, Preprocessor, Row, TensorSpec

_MEASURES = (
    "radius",
    "texture",
    "perimeter",
    "area",
    "smoothness",
    "compactness",
    "concavity",
    "concave points",
    "symmetry",
    "fractal dimension",
)
#: The data set's feature names, in the order of the model's input.
FEATURES = tuple(
    pattern.format(measure)
    for pattern in ("mean {}", "{} error", "worst {}")
    for measure in _MEASURES
)
#: The data set's target names, in the order of the model's output.
LABELS: tuple[Literal["malignant", "benign"], ...] = ("malignant", "benign")

#: No measurement can be negative; the bound is far above the data set's largest (4254) and far
#: below what float32 cannot hold.
Measurement = Annotated[float, msgspec.Meta(ge=0, le=1e6)]

#: One instance. The fields' Python names are the data set's with underscores.
Measurements = msgspec.defstruct(
    "Measurements",
    [(name.replace(" ", "_"), Measurement) for name in FEATURES],
    rename={name.replace(" ", "_"): name for name in FEATURES},
    namespace={"__doc__": "The measurements of one breast mass, computed from an image of it."},
    module=__name__,
    frozen=True,
    forbid_unknown_fields=True,
)

_MALIGNANT = (
    *(17.99, 10.38, 122.8, 1001.0, 0.1184, 0.2776, 0.3001, 0.1471, 0.2419, 0.07871),
    *(1.095, 0.9053, 8.589, 153.4, 0.006399, 0.04904, 0.05373, 0.01587, 0.03003, 0.006193),
    *(25.38, 17.33, 184.6, 2019.0, 0.1622, 0.6656, 0.7119, 0.2654, 0.4601, 0.1189),
)


class Verdict(msgspec.Struct, frozen=True):
    """The more probable label, and the probability of that label."""

    label: Literal["malignant", "benign"]
    probability: Annotated[float, msgspec.Meta(ge=0, le=1)]


class TumorPreprocessor(Preprocessor[msgspec.Struct, NoParameters, Verdict]):
    """A record of 30 measurements → benign or malignant."""

    input_type = Measurements
    output_type = Verdict
    tensors = (TensorSpec("features", "float32", (len(FEATURES),)),)
    outputs = (TensorSpec("probabilities", "float32", (len(LABELS),)),)
    examples = (Example(dict(zip(FEATURES, _MALIGNANT, strict=True)), summary="a malignant mass"),)

    def preprocess(
        self,
        instances: Sequence[msgspec.Struct],
        parameters: Sequence[NoParameters],  # noqa: ARG002 - there are none
    ) -> list[Prepared]:
        """Put each record's measurements into the model's order."""
        rows = np.array([msgspec.structs.astuple(record) for record in instances], np.float32)
        return [Prepared({"features": row}) for row in rows]

    def postprocess(
        self,
        rows: Sequence[Row],
        contexts: Sequence[Any],  # noqa: ARG002 - nothing is carried over
    ) -> list[Verdict]:
        """Name the more probable class."""
        verdicts = []
        for row in rows:
            best = int(row["probabilities"].argmax())
            verdicts.append(Verdict(LABELS[best], float(row["probabilities"][best])))
        return verdicts
