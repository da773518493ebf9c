"""Every gRPC status of an inference is decided, and told by code, not by text."""

from __future__ import annotations

import grpc
import pytest

from gateway.triton.errors import DETAILS, TABLE, translated


@pytest.mark.parametrize("status", [code for code in grpc.StatusCode if code.name != "OK"])
def test_every_status_is_decided(status: grpc.StatusCode) -> None:
    error = translated(status)
    assert type(error) is TABLE[status]
    assert error.detail == DETAILS[type(error)]
    assert (error.retry_after is not None) == (error.status == 503)
