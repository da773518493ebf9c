"""Translates Triton's failures where they enter the gateway.

By gRPC status code, never by message text, which only goes to the log.
"""

from __future__ import annotations

import grpc

from gateway import errors

#: What each gRPC status of an inference means to the client; a test decides every code.
TABLE: dict[grpc.StatusCode, type[errors.GatewayError]] = {
    # Triton answered, but could not do what was requested.
    grpc.StatusCode.INVALID_ARGUMENT: errors.InferenceFailed,
    grpc.StatusCode.INTERNAL: errors.InferenceFailed,
    grpc.StatusCode.UNKNOWN: errors.InferenceFailed,
    grpc.StatusCode.UNIMPLEMENTED: errors.InferenceFailed,
    grpc.StatusCode.OUT_OF_RANGE: errors.InferenceFailed,
    grpc.StatusCode.DATA_LOSS: errors.InferenceFailed,
    grpc.StatusCode.ABORTED: errors.InferenceFailed,
    grpc.StatusCode.ALREADY_EXISTS: errors.InferenceFailed,
    grpc.StatusCode.PERMISSION_DENIED: errors.InferenceFailed,
    grpc.StatusCode.UNAUTHENTICATED: errors.InferenceFailed,
    # The model version is not (or no longer) loaded.
    grpc.StatusCode.NOT_FOUND: errors.ReleaseNotReady,
    grpc.StatusCode.FAILED_PRECONDITION: errors.ReleaseNotReady,
    # Down, restarting, unloading or full: all temporary.
    grpc.StatusCode.UNAVAILABLE: errors.TritonUnreachable,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.TritonUnreachable,
    grpc.StatusCode.CANCELLED: errors.TritonUnreachable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
}
#: Failures that are the server's own, as far as the code tells: a dead instance, a crash. The same
#: rows may be answered by another instance. (Inference is pure: repeating it is safe.)
REPEATABLE = frozenset(
    {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS}
)
DETAILS: dict[type[errors.GatewayError], str] = {
    errors.InferenceFailed: "Triton failed this inference; the gateway's log says why.",
    errors.ReleaseNotReady: "Triton does not serve this model version now.",
    errors.TritonUnreachable: "Triton does not answer now.",
    errors.DeadlineExceeded: "The deadline passed while Triton was computing.",
}


def translated(status: grpc.StatusCode) -> errors.GatewayError:
    """Return the gateway's error for a failed inference."""
    kind = TABLE[status]
    error = kind(DETAILS[kind])
    if isinstance(error, errors.InferenceFailed):
        error.repeatable = status in REPEATABLE
    return error
