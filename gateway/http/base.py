"""The base of all handlers: request ids, the one error envelope, the request log and metrics."""

from __future__ import annotations

import random
import re
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from tornado.web import HTTPError, RequestHandler, stream_request_body

from gateway import errors
from gateway.telemetry import logs, metrics

log = structlog.get_logger("gateway.request")

PROBLEM_JSON = "application/problem+json"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


@stream_request_body
class Handler(RequestHandler):
    """Answers every failure as RFC 9457 problem JSON and counts every answer.

    Bodies are streamed, so that the gateway enforces and explains their limit (Tornado's own answer
    is an empty 400); handlers that expect no body discard it.
    """

    #: Metric labels, bounded: the endpoint's name, and the model only if it exists.
    endpoint = "other"
    model = ""
    #: The code of the error that was answered, if any.
    code = ""
    #: Whether this is polled every few seconds: such answers are logged at debug level.
    probe = False
    request_id = ""

    def set_default_headers(self) -> None:
        """Adopt the client's request id, or make one."""
        # Tornado calls this again before it renders an error; the id must not change then.
        if not self.request_id:
            given = self.request.headers.get("X-Request-Id", "")
            made = f"{random.getrandbits(128):032x}"  # unique, not secret
            self.request_id = given if _REQUEST_ID.fullmatch(given) else made
        self.set_header("X-Request-Id", self.request_id)
        self.clear_header("Server")

    def data_received(self, chunk: bytes) -> None:
        """Discard an unexpected body."""

    def write_json(self, content: Any) -> None:
        """Finish with `content` as JSON."""
        self.set_header("Content-Type", "application/json")
        self.finish(msgspec.json.encode(content))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Render any exception: a GatewayError as it is, Tornado's by status, others as 500."""
        error = _gateway_error(status_code, kwargs.get("exc_info", (None, None, None))[1], self)
        self.code = error.code
        self.set_status(error.status)
        self.set_header("Content-Type", PROBLEM_JSON)
        if error.retry_after is not None:
            self.set_header("Retry-After", str(error.retry_after))
        problem: dict[str, Any] = {
            "type": f"urn:gateway:error:{error.code}",
            "title": error.title,
            "status": error.status,
            "detail": error.detail,
            "code": error.code,
            "request_id": self.request_id,
        }
        if error.errors:
            problem["errors"] = error.errors
        self.finish(msgspec.json.encode(problem))

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        """Log only unexpected errors; those told to the client are in the request log."""
        if not isinstance(value, errors.GatewayError | HTTPError):
            log.error("unexpected", request_id=self.request_id, exc_info=(typ, value, tb))


def record(requests: logs.RequestLog, handler: RequestHandler) -> None:
    """Count and log one finished request (Tornado's `log_function`, given the log)."""
    assert isinstance(handler, Handler)  # noqa: S101 - the application routes to nothing else
    seconds, status = handler.request.request_time(), handler.get_status()
    count, duration = metrics.answered(handler.model, handler.endpoint, status)
    count.inc()
    duration.observe(seconds)
    if handler.code:
        metrics.failed(handler.model, handler.endpoint, handler.code).inc()
    request = handler.request
    requests.write(
        logs.Answered(
            handler.request_id,
            request.method,
            request.path,
            status,
            round(seconds * 1000, 3),
            request.remote_ip,
        ),
        probe=handler.probe,
    )


class Bodied(Handler):
    """Keeps a request's body up to `limit` bytes; what comes beyond is read and dropped."""

    limit = 0

    def prepare(self) -> None:
        """Start with an empty body."""
        self._chunks: list[bytes] = []
        self._size = 0

    def data_received(self, chunk: bytes) -> None:
        """Store the next part of the body."""
        self._size += len(chunk)
        if self._size <= self.limit:
            self._chunks.append(chunk)
        else:
            self._chunks.clear()

    def body(self) -> bytes:
        """Return the whole body. Raises BodyTooLarge."""
        if self._size > self.limit:
            raise errors.BodyTooLarge(
                f"The body has {self._size} bytes; at most {self.limit} are read."
            )
        whole = b"".join(self._chunks)
        self._chunks.clear()
        return whole


class UnknownRoute(Handler):
    """Every path that nothing else handles."""

    def refuse(self) -> None:
        """Refuse, once the body has been read: the connection stays usable."""
        raise errors.UnknownRoute(f"There is nothing at {self.request.path[:200]}.")

    head = get = post = delete = patch = put = options = refuse


def _gateway_error(
    status: int, error: BaseException | None, handler: RequestHandler
) -> errors.GatewayError:
    if isinstance(error, errors.GatewayError):
        return error
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        if handler.request.method not in handler.SUPPORTED_METHODS:
            # Tornado refuses these before the body is read, and closes the connection.
            handler.set_header("Connection", "close")
        allowed = [m for m in handler.SUPPORTED_METHODS if _implements(handler, m)]
        handler.set_header("Allow", ", ".join(allowed))
        return errors.MethodNotAllowed(f"Use {' or '.join(allowed)}.")
    if isinstance(error, HTTPError) and status in (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND):
        # Tornado's own 400 means a path whose percent-encoding is not UTF-8. It comes before the
        # body is read, and Tornado closes the connection.
        handler.set_header("Connection", "close")
        return errors.UnknownRoute("There is nothing at this path.")
    return errors.GatewayError("The gateway failed on this request; its log has the cause.")


def _implements(handler: RequestHandler, method: str) -> bool:
    own = getattr(type(handler), method.lower(), None)
    return own is not getattr(RequestHandler, method.lower(), None)
