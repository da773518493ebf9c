"""What a client is told of input and output that could not be processed."""

from __future__ import annotations

from gateway_preprocessor import InvalidInput, Prepared
from gateway_preprocessor.errors import Problem
from structlog.testing import capture_logs

from gateway.errors import MOST_ERRORS, InputError, InvalidInstances
from gateway.serving.request import failure_of_input, failure_of_output

FINE = Prepared({})


def test_every_bad_value_is_named_by_instance_and_place() -> None:
    bad = InvalidInput("$.a", "is empty", Problem("$.b", "is no number"))
    error = failure_of_input([FINE, bad, FINE, InvalidInput("$", "is empty")], "r1")
    assert isinstance(error, InvalidInstances)
    assert error.detail == "input 1, $.a: is empty (2 more)"
    assert error.errors == (
        InputError(1, "$.a", "is empty"),
        InputError(1, "$.b", "is no number"),
        InputError(3, "$", "is empty"),
    )


def test_a_bad_parameter_belongs_to_the_request_and_counts_once() -> None:
    bad = [InvalidInput("parameters.top", "must be positive") for _ in range(3)]
    error = failure_of_input(bad, "r1")
    assert error.detail == "parameters.top: must be positive"
    assert error.errors == (InputError(None, "parameters.top", "must be positive"),)


def test_a_large_batch_of_bad_values_is_not_answered_in_full() -> None:
    error = failure_of_input([InvalidInput("$", "is empty")] * (MOST_ERRORS + 50), "r1")
    assert len(error.errors) == MOST_ERRORS
    assert error.detail.endswith(f"({MOST_ERRORS + 49} more)")


def test_what_a_preprocessor_raises_is_logged_and_not_told() -> None:
    cause = RuntimeError("secret of the preprocessor")
    with capture_logs() as logged:
        of_input = failure_of_input([InvalidInput("$", "is empty"), cause], "r1")
        of_output = failure_of_output([b"1", cause], "r2")
    assert (of_input.status, of_output.status) == (500, 500)
    assert "secret" not in of_input.detail + of_output.detail
    assert [(entry["request_id"], entry["exc_info"]) for entry in logged] == [
        ("r1", cause),
        ("r2", cause),
    ]
