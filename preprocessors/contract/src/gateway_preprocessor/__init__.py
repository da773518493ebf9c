"""The contract between the gateway and its versioned preprocessors.

A preprocessor is one pip distribution with an entry point in the group
`gateway.preprocessors` that names a `Preprocessor` subclass. See the README for a whole one.
"""

from gateway_preprocessor.description import Description, describe
from gateway_preprocessor.errors import ContractViolation, InvalidInput, Problem
from gateway_preprocessor.installed import ENTRY_POINT_GROUP, find
from gateway_preprocessor.preprocessor import (
    Example,
    NoParameters,
    Prepared,
    Preprocessor,
    Row,
)
from gateway_preprocessor.runner import JSON, Payload, Runner
from gateway_preprocessor.specs import TensorSpec

__all__ = [
    "ENTRY_POINT_GROUP",
    "JSON",
    "ContractViolation",
    "Description",
    "Example",
    "InvalidInput",
    "NoParameters",
    "Payload",
    "Prepared",
    "Preprocessor",
    "Problem",
    "Row",
    "Runner",
    "TensorSpec",
    "describe",
    "find",
]
