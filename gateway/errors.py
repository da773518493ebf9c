"""Every error that a client can see, as one tree; rendered once, in `http/base.py`.

GatewayError                     500 internal             our bug; no internals leak
├── NotJson                      400 not_json             the body is not JSON text
├── BadEnvelope                  400 bad_envelope         JSON, but not the envelope
├── BadHeader                    400 bad_header           a request header is malformed
├── Unauthorized                 401 unauthorized         WWW-Authenticate
├── Forbidden                    403 forbidden            /admin is not open to this client
├── UnknownModel                 404 unknown_model
├── UnknownRelease               404 unknown_release      X-Release is not one of the model's
├── UnknownRoute                 404 unknown_route
├── MethodNotAllowed             405 method_not_allowed
├── RolloutRefused               409 rollout_refused      traffic and shadow unchanged
├── BodyTooLarge                 413 body_too_large
├── BatchTooLarge                413 batch_too_large
├── UnsupportedMediaType         415 unsupported_media_type
├── InvalidInstances             422 invalid_input        errors: [{index, path, reason}]
├── PoisonousInput               422 poisonous_input      errors: [{index, path, reason}]
├── Overloaded                   429 overloaded           Retry-After
├── InferenceFailed              502 inference_failed     Triton failed the inference
├── ReleaseNotReady              503 release_not_ready    Retry-After
├── TritonUnreachable            503 triton_unreachable   Retry-After
├── Draining                     503 draining             Retry-After
└── DeadlineExceeded             504 deadline_exceeded
"""

from __future__ import annotations

import re
import textwrap
from typing import ClassVar

import msgspec

#: Most entries of `errors` in one answer, however many rows are bad.
MOST_ERRORS = 100
#: Longer reasons (a compiler's output, say) are cut between two words.
LONGEST_REASON = 4000
_PATH = re.compile(r"(?<![\w.])(?:/[\w.@+-]+)+/([\w.@+-]+)")


class InputError(msgspec.Struct, frozen=True):
    """One entry of `errors`: which instance (None: the request itself), where in it, and why."""

    index: int | None
    path: str
    reason: str


def public(reason: str) -> str:
    """Reduce what Triton, uv or a worker reported to one line that may be shown, without paths."""
    return _PATH.sub(r"\1", textwrap.shorten(reason, LONGEST_REASON, placeholder=" …"))


class GatewayError(Exception):
    """A failure that is answered with `status` and an RFC 9457 problem.

    `detail` is written for the client. `errors` names single instances. `retry_after` is in
    seconds; temporary failures have a default.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "The gateway failed"
    retry_after: int | None = None

    def __init__(
        self,
        detail: str,
        *,
        errors: tuple[InputError, ...] = (),
        retry_after: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors
        if retry_after is not None:
            self.retry_after = retry_after


class NotJson(GatewayError):
    """The body is not JSON text in UTF-8."""

    status, code, title = 400, "not_json", "The body is not JSON"


class BadEnvelope(GatewayError):
    """The body is JSON, but neither `{"input": …}` nor `{"inputs": […]}`."""

    status, code, title = 400, "bad_envelope", "The request's envelope is wrong"


class BadHeader(GatewayError):
    """A request header is malformed."""

    status, code, title = 400, "bad_header", "A request header is wrong"


class Unauthorized(GatewayError):
    """The admin key is missing or wrong."""

    status, code, title = 401, "unauthorized", "The admin key is missing or wrong"


class Forbidden(GatewayError):
    """This client may not use `/admin`."""

    status, code, title = 403, "forbidden", "Forbidden"


class UnknownModel(GatewayError):
    """No such model is served."""

    status, code, title = 404, "unknown_model", "Unknown model"


class UnknownRelease(GatewayError):
    """The model has no release of that name."""

    status, code, title = 404, "unknown_release", "Unknown release"


class UnknownRoute(GatewayError):
    """No such path."""

    status, code, title = 404, "unknown_route", "Unknown path"


class MethodNotAllowed(GatewayError):
    """The path does not support this method."""

    status, code, title = 405, "method_not_allowed", "Method not allowed"


class RolloutRefused(GatewayError):
    """Traffic or shadow cannot be changed as requested; both stay as they were."""

    status, code, title = 409, "rollout_refused", "The change is refused"


class BodyTooLarge(GatewayError):
    """The body exceeds the limit in bytes."""

    status, code, title = 413, "body_too_large", "The body is too large"


class BatchTooLarge(GatewayError):
    """The batch exceeds the limit in rows or pixels."""

    status, code, title = 413, "batch_too_large", "The batch is too large"


class UnsupportedMediaType(GatewayError):
    """The model does not accept this Content-Type."""

    status, code, title = 415, "unsupported_media_type", "Unsupported media type"


class InvalidInstances(GatewayError):
    """An instance (or a parameter) is invalid; no instance of the request was inferred."""

    status, code, title = 422, "invalid_input", "Invalid input"


class PoisonousInput(GatewayError):
    """An instance ends the processes that work on it; sent again, it would end others."""

    status, code, title = 422, "poisonous_input", "The input cannot be processed"


class Overloaded(GatewayError):
    """The model's queue is full."""

    status, code, title = 429, "overloaded", "Too many requests"


class InferenceFailed(GatewayError):
    """Triton was reached but failed the inference; `repeatable`: it may succeed when repeated."""

    status, code, title = 502, "inference_failed", "The inference failed"
    repeatable = False


class ReleaseNotReady(GatewayError):
    """The release exists but cannot take requests now."""

    status, code, title = 503, "release_not_ready", "The release is not ready"
    retry_after = 2


class TritonUnreachable(GatewayError):
    """No Triton replica answers."""

    status, code, title = 503, "triton_unreachable", "Triton is unreachable"
    retry_after = 2


class Draining(GatewayError):
    """The gateway is shutting down."""

    status, code, title = 503, "draining", "The gateway is shutting down"
    retry_after = 1


class DeadlineExceeded(GatewayError):
    """The request's deadline passed before it was answered."""

    status, code, title = 504, "deadline_exceeded", "The deadline passed"
