"""The base class of every preprocessor."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import msgspec
from numpy.typing import NDArray

from gateway_preprocessor.errors import ContractViolation
from gateway_preprocessor.specs import TensorSpec

InputT = TypeVar("InputT")
ParametersT = TypeVar("ParametersT", bound=msgspec.Struct)
OutputT = TypeVar("OutputT")

#: One instance's outputs of the model, by name, without the batch dimension.
Row = Mapping[str, NDArray[Any]]


class NoParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parameters of a model that takes none."""


class Prepared(NamedTuple):
    """One preprocessed instance.

    `tensors` holds exactly the declared names, unpadded and without a batch dimension.
    `context` is handed back to `postprocess`; it may travel between processes, so it holds
    only what MessagePack can carry (None, bool, int, float, str, bytes, list, dict).
    """

    tensors: dict[str, NDArray[Any]]
    context: Any = None


class Example(NamedTuple):
    """A request that works, shown to people in `/models` and used by the conformance kit.

    `input` and `parameters` are JSON values (base64 text for bytes).
    """

    input: Any
    parameters: Mapping[str, Any] = {}
    summary: str = ""


class Preprocessor(ABC, Generic[InputT, ParametersT, OutputT]):
    """Turns instances into tensors and rows of outputs into results.

    Subclasses declare the class attributes below and implement `preprocess` and `postprocess`;
    those must be pure, thread-safe and synchronous. Build resources once, in `__init__`.
    A wrong or missing declaration raises ContractViolation when the class is created.
    """

    #: msgspec-decodable types: their JSON Schemas are the model's public interface.
    input_type: ClassVar[Any]
    parameters_type: ClassVar[type[msgspec.Struct]] = NoParameters
    output_type: ClassVar[Any]
    #: What is sent to the model, and which of its outputs are asked for.
    tensors: ClassVar[tuple[TensorSpec, ...]]
    outputs: ClassVar[tuple[TensorSpec, ...]]
    #: Requests that work.
    examples: ClassVar[tuple[Example, ...]]
    #: Content types of raw bodies that `from_bytes` turns into an input.
    media_types: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not inspect.isabstract(cls):
            _check_declarations(cls)

    @abstractmethod
    def preprocess(
        self, instances: Sequence[InputT], parameters: Sequence[ParametersT]
    ) -> Sequence[Prepared]:
        """Turn decoded instances into tensors, one `Prepared` per instance, in order.

        Raises InvalidInput for an instance that decodes but makes no sense; the runner then
        repeats the batch one by one, so that only the bad instance fails.
        """

    @abstractmethod
    def postprocess(self, rows: Sequence[Row], contexts: Sequence[Any]) -> Sequence[OutputT]:
        """Turn one row of model outputs per instance, and its context, into results, in order."""

    @classmethod
    def from_bytes(cls, content: bytes, media_type: str) -> InputT:
        """Turn a raw body of one of `media_types` into an input. Raises InvalidInput."""
        raise ContractViolation(f"{cls.__name__} takes no {media_type} ({len(content)} bytes)")


def _check_declarations(cls: type[Preprocessor[Any, Any, Any]]) -> None:
    for name in ("input_type", "output_type", "tensors", "outputs", "examples"):
        if not hasattr(cls, name):
            raise ContractViolation(f"{cls.__name__} does not declare {name!r}")
    for name in ("tensors", "outputs"):
        specs = getattr(cls, name)
        if not specs or not all(isinstance(spec, TensorSpec) for spec in specs):
            raise ContractViolation(f"{cls.__name__}.{name} must be a tuple of TensorSpec")
        if len({spec.name for spec in specs}) != len(specs):
            raise ContractViolation(f"{cls.__name__}.{name} names a tensor twice")
    if not cls.examples:
        raise ContractViolation(f"{cls.__name__} shows no example")
    takes_bytes = cls.from_bytes.__func__ is not Preprocessor.from_bytes.__func__  # type: ignore[attr-defined]
    if takes_bytes != bool(cls.media_types):
        raise ContractViolation(f"{cls.__name__}: media_types and from_bytes belong together")
