"""What a preprocessor declares, as plain data that can leave its process."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway_preprocessor.preprocessor import Preprocessor
from gateway_preprocessor.specs import TensorSpec


class Description(msgspec.Struct, frozen=True):
    """A preprocessor's declarations; schemas are JSON Schema 2020-12, examples JSON values."""

    tensors: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    media_types: tuple[str, ...]
    input_schema: dict[str, Any]
    parameters_schema: dict[str, Any]
    output_schema: dict[str, Any]
    examples: list[dict[str, Any]]


def describe(preprocessor: type[Preprocessor[Any, Any, Any]]) -> Description:
    """Collect what `preprocessor` declares."""
    return Description(
        tensors=preprocessor.tensors,
        outputs=preprocessor.outputs,
        media_types=preprocessor.media_types,
        input_schema=msgspec.json.schema(preprocessor.input_type),
        parameters_schema=msgspec.json.schema(preprocessor.parameters_type),
        output_schema=msgspec.json.schema(preprocessor.output_type),
        examples=[
            {name: value for name, value in example._asdict().items() if value}
            for example in preprocessor.examples
        ],
    )
