"""Every gRPC status of an inference is decided, and told by code, not by text."""

from __future__ import annotations

import grpc
import pytest
from tritonclient.utils import InferenceServerException

from gateway import errors
from gateway.triton.errors import DETAILS, TABLE, translated


@pytest.mark.parametrize("status", [code for code in grpc.StatusCode if code.name != "OK"])
def test_every_status_is_decided(status: grpc.StatusCode) -> None:
    error = translated(InferenceServerException("secret internals", str(status)))
    assert type(error) is TABLE[status]
    assert error.detail == DETAILS[type(error)]
    assert "secret" not in str(error)
    assert (error.retry_after is not None) == (error.status == 503)


def test_a_failure_without_status_is_triton_s() -> None:
    assert isinstance(translated(InferenceServerException("?")), errors.InferenceFailed)
