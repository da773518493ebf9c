"""An image → `image` (float32, 1 x 8 x 8); `scores` (float32, 10) → a digit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from gateway_preprocessor import Example, NoParameters, Prepared, Preprocessor, Row, TensorSpec

from digits_preprocessor.decode import grey
from digits_preprocessor.normalise import GRID, normalise

CLASSES = 10

#: A handwritten 3 from the data set as PNG, 24 x 24, dark on light.
_THREE = (
    "iVBORw0KGgoAAAANSUhEUgAAABgAAAAYCAAAAADFHGIkAAAAeElEQVR42rXRQQ1CMRBF0VPCvg6qpA4+DjBCFfw6"
    "QAEOQAE4wEEdVAEsgLAh+SWBWU0yucl7d8LN51n52WH9Wvaq5CgOEtXJrLjKS0R49GiiDc7DqZKmyfpyqvB21W1x"
    "eDIjBF2R7AZdVVl3MQ3bjQom8xc9/vbzOxkhF7kgpjXjAAAAAElFTkSuQmCC"
)


class DigitImage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One handwritten digit: dark on light or light on dark, any size."""

    image: Annotated[bytes, msgspec.Meta(description="a PNG or JPEG file")]


class Digit(msgspec.Struct, frozen=True):
    """The digit with the highest score; the scores are the probabilities of 0 to 9."""

    label: Annotated[int, msgspec.Meta(ge=0, le=CLASSES - 1)]
    scores: Annotated[
        list[Annotated[float, msgspec.Meta(ge=0, le=1)]],
        msgspec.Meta(min_length=CLASSES, max_length=CLASSES),
    ]


class DigitsPreprocessor(Preprocessor[DigitImage, NoParameters, Digit]):
    """An image of one handwritten digit → which digit."""

    input_type = DigitImage
    output_type = Digit
    tensors = (TensorSpec("image", "float32", (1, GRID, GRID)),)
    outputs = (TensorSpec("scores", "float32", (CLASSES,)),)
    examples = (Example({"image": _THREE}, summary="a three, dark on light"),)
    media_types = ("image/png", "image/jpeg")

    def preprocess(
        self,
        instances: Sequence[DigitImage],
        parameters: Sequence[NoParameters],  # noqa: ARG002 - there are none
    ) -> list[Prepared]:
        """Decode each image and lay it into the data set's grid. Raises InvalidInput."""
        return [
            Prepared({"image": normalise(grey(instance.image))[None]}) for instance in instances
        ]

    def postprocess(
        self,
        rows: Sequence[Row],
        contexts: Sequence[Any],  # noqa: ARG002 - nothing is carried over
    ) -> list[Digit]:
        """Name the digit with the highest score."""
        return [Digit(int(row["scores"].argmax()), row["scores"].tolist()) for row in rows]

    @classmethod
    def from_bytes(cls, content: bytes, media_type: str) -> DigitImage:  # noqa: ARG003
        """Take the file as it is: its own signature tells the format, not `media_type`."""
        return DigitImage(content)
