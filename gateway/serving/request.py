"""A front end's request to the predictor, its answer, and its errors on bad input."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import structlog
from gateway_preprocessor import Description, InvalidInput, Payload, Prepared
from numpy.typing import NDArray

from gateway.deadline import Deadline
from gateway.errors import (
    MOST_ERRORS,
    GatewayError,
    InferenceFailed,
    InputError,
    InvalidInstances,
    PoisonousInput,
)
from gateway.preprocessing.losses import Poisonous

log = structlog.get_logger(__name__)


class Request(NamedTuple):
    """What a front end (HTTP, a job) asks of the predictor.

    `payloads` reads the instances once the release is chosen, which decides the accepted media
    types. `client` names who asks, for sharing a full queue. `release` pins a release by name;
    requests with the same `affinity` key are answered by the same release while the weights stay
    the same.
    """

    model: str
    payloads: Callable[[Description], Awaitable[Sequence[Payload]]]
    deadline: Deadline
    id: str
    client: str = ""
    release: str | None = None
    affinity: str | None = None


class Stamps(msgspec.Struct, frozen=True):
    """What answered, as each answer tells it."""

    model: str
    release: str
    model_version: int
    preprocessor: str


class Prediction(NamedTuple):
    """An answer: results as JSON text in the order of the instances, stage times in seconds."""

    stamps: Stamps
    results: Sequence[bytes]
    stages: Mapping[str, float]


class InferredRow(NamedTuple):
    """One row of a call's outputs: `outputs` are those of the whole call, (rows, …)."""

    outputs: Mapping[str, NDArray[Any]]
    position: int
    context: Any


def failure_of_input(found: Sequence[Prepared | Exception], request_id: str) -> GatewayError:
    """Return the error for a request with instances that could not be preprocessed.

    InvalidInstances naming each bad value, or a plain GatewayError if the preprocessor failed.
    """
    problems: dict[InputError, None] = {}  # ordered, and a bad parameter counts once
    for index, error in enumerate(found):
        if isinstance(error, InvalidInput):
            for path, reason in error.problems:
                where = None if path.startswith("parameters") else index
                problems[InputError(where, path, reason)] = None
        elif isinstance(error, Exception):
            log.error("preprocess failed", request_id=request_id, exc_info=error)
            return GatewayError("The preprocessor failed on this input.")
    first = next(iter(problems))
    place = first.path if first.index is None else f"input {first.index}, {first.path}"
    more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
    return InvalidInstances(f"{place}: {first.reason}{more}", errors=tuple(problems)[:MOST_ERRORS])


def poisonous(index: int, cause: Poisonous) -> PoisonousInput:
    """Return the error for a request whose instance `index` costs workers."""
    detail = f"input {index} cannot be processed: {cause}"
    return PoisonousInput(detail, errors=(InputError(index, "$", str(cause)),))


def failure_of_inference(index: int, output: str) -> InferenceFailed:
    """Return the error for a request whose instance `index` has no finite `output`.

    JSON has no such numbers: the client would get null where its schema has a number.
    """
    reason = f"the model's output {output!r} is not finite (NaN or infinity)"
    errors = (InputError(index, "$", reason),)
    return InferenceFailed(f"input {index}: {reason}", errors=errors)


def failure_of_output(found: Sequence[bytes | Exception], request_id: str) -> GatewayError:
    """Return the error for a request with rows that could not be postprocessed."""
    cause = next(item for item in found if isinstance(item, Exception))
    log.error("postprocess failed", request_id=request_id, exc_info=cause)
    return GatewayError("The preprocessor failed on this model's output.")
