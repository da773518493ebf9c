"""The base of all handlers: request ids, the one error envelope, the request log and metrics."""

from __future__ import annotations

import random
import re
from collections import Counter
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from tornado.web import HTTPError, RequestHandler, stream_request_body

from gateway import errors
from gateway.telemetry import logs, metrics

log = structlog.get_logger("gateway.request")

PROBLEM_JSON = "application/problem+json"
#: Bodies up to this many bytes have mostly arrived with their head: refusing them early saves
#: nothing, and the number of connections bounds their memory.
SMALL = 64 << 10
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
    #: Whether the answer comes before the body has been read: Tornado then closes the connection.
    unread = False
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
        if self.unread:
            self.set_header("Connection", "close")
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


class BodyRoom:
    """The memory for large bodies: `limit` bytes in all, of which one model may have half."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = Counter[str]()

    def take(self, model: str, size: int) -> None:
        """Hold `size` bytes for a request. Raises Overloaded."""
        held, of_model = self._held.total(), self._held[model]
        if held and max(held + size, 2 * (of_model + size)) > self._limit:
            raise errors.Overloaded(
                f"The bodies of requests in progress have {held} bytes, {of_model} of them for this"
                f" model; {size} more would be too many.",
                retry_after=1,
            )
        self._held[model] += size

    def give_back(self, model: str, size: int) -> None:
        """Hold `size` bytes less."""
        self._held[model] -= size
        if not self._held[model]:
            del self._held[model]


class Bodied(Handler):
    """Keeps a request's body up to `limit` bytes; what comes beyond is read and dropped.

    Large bodies need room in `room`; the path's first part is the model that they count for.
    """

    limit = 0
    room: BodyRoom

    def prepare(self) -> None:
        """Start with an empty body. Raises GatewayError if the client awaits leave to send it.

        A body that comes anyway is read and dropped before its refusal: a connection closed with
        data unread would be reset, and the client might never see why.
        """
        self._chunks: list[bytes] = []
        self._size = 0
        self._taken = 0
        self._refusal: errors.GatewayError | None = None
        announced = self.request.headers.get("Content-Length", "")
        length = min(int(announced), self.limit) if announced.isdecimal() else 0
        if length > SMALL:
            try:
                self.prepare_large()
                self._take(length)
            except errors.GatewayError as error:
                if self.request.headers.get("Expect"):
                    self.unread = True
                    raise
                self._refusal = error

    def prepare_large(self) -> None:
        """Refuse a large body by its head, if that tells enough. Raises GatewayError."""

    def on_finish(self) -> None:
        """Make room for other bodies (Tornado's hook)."""
        if self._taken:
            self.room.give_back(self.path_args[0], self._taken)
            self._taken = 0

    on_connection_close = on_finish

    def data_received(self, chunk: bytes) -> None:
        """Store the next part of the body."""
        self._size += len(chunk)
        if not self._refusal and max(self._taken, SMALL) < self._size <= self.limit:
            self._take_more()
        if self._size <= self.limit and not self._refusal:
            self._chunks.append(chunk)
        else:
            self._chunks.clear()

    def body(self) -> bytes:
        """Return the whole body. Raises GatewayError, as BodyTooLarge or Overloaded."""
        if self._size > self.limit:
            raise errors.BodyTooLarge(
                f"The body has {self._size} bytes; at most {self.limit} are read."
            )
        if self._refusal:
            raise self._refusal
        whole = b"".join(self._chunks)
        self._chunks.clear()
        return whole

    def _take(self, size: int) -> None:
        self.room.take(self.path_args[0], size)
        self._taken += size

    def _take_more(self) -> None:
        """Take room for a body whose size was not announced; it is refused once it has arrived."""
        try:
            self._take(self._size - self._taken)
        except errors.Overloaded as error:
            self._refusal = error


class UnknownRoute(Handler):
    """Every path that nothing else handles."""

    def refuse(self) -> None:
        """Refuse, once the body has been read: the connection stays usable."""
        raise errors.UnknownRoute(f"There is nothing at {self.request.path[:200]}.")

    head = get = post = delete = patch = put = options = refuse


def _gateway_error(
    status: int, error: BaseException | None, handler: Handler
) -> errors.GatewayError:
    if isinstance(error, errors.GatewayError):
        return error
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        if handler.request.method not in handler.SUPPORTED_METHODS:
            handler.unread = True
        allowed = [m for m in handler.SUPPORTED_METHODS if _implements(handler, m)]
        handler.set_header("Allow", ", ".join(allowed))
        return errors.MethodNotAllowed(f"Use {' or '.join(allowed)}.")
    if isinstance(error, HTTPError) and status in (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND):
        # Tornado's own 400 means a path whose percent-encoding is not UTF-8.
        handler.unread = True
        return errors.UnknownRoute("There is nothing at this path.")
    return errors.GatewayError("The gateway failed on this request; its log has the cause.")


def _implements(handler: RequestHandler, method: str) -> bool:
    own = getattr(type(handler), method.lower(), None)
    return own is not getattr(RequestHandler, method.lower(), None)
