"""Logs: one JSON object per line, for the gateway's events and for libraries."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import IO, Any, BinaryIO, cast

import msgspec
import structlog

from gateway.settings import Settings
from gateway.telemetry import metrics


class Answered(msgspec.Struct):
    """The log line of one request; `ms` is how long it took."""

    request_id: str
    method: str | None
    path: str
    status: int
    ms: float
    remote: str | None
    event: str = "request"
    level: str = ""
    timestamp: str = ""


class Stream:
    """Where the log goes: what `opened` returns, and again after `reopen` (a rotated file).

    A line that cannot be written, as on a full disk, is counted and dropped: no request fails, and
    nothing is answered later, because of the log.
    """

    def __init__(self, opened: Callable[[], IO[bytes]]) -> None:
        self._opened = opened
        self._file = opened()

    def write(self, data: bytes) -> int:
        """Write; returns the length of `data`."""
        try:
            self._file.write(data)
        except OSError:
            metrics.LOG_ERRORS.inc()
        return len(data)

    def flush(self) -> None:
        """Flush what the file buffers."""
        try:
            self._file.flush()
        except OSError:
            metrics.LOG_ERRORS.inc()

    def reopen(self) -> None:
        """Open the file anew, if it can be opened."""
        try:
            before, self._file = self._file, self._opened()
        except OSError as error:
            structlog.get_logger(__name__).error("the log cannot be reopened", reason=str(error))
            return
        if before is not self._file:
            before.close()


class RequestLog:
    """Writes one line per request in structlog's format: 3.5 µs each, where structlog takes 8."""

    def __init__(self, stream: Stream, level: int) -> None:
        self.stream = stream
        self._encode = msgspec.json.Encoder().encode
        self._second, self._text = 0, ""
        self._write = structlog.BytesLogger(cast("BinaryIO", stream)).msg
        self._level = level

    def write(self, line: Answered, *, probe: bool = False) -> None:
        """Write `line` with time and level: an error if the gateway failed.

        Answers to probes are debug lines, whatever their status: state changes are logged anyway.
        """
        failed = line.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        level = logging.DEBUG if probe else logging.ERROR if failed else logging.INFO
        if level >= self._level:
            line.level = "debug" if probe else "error" if failed else "info"
            line.timestamp = self._now()
            self._write(self._encode(line))

    def _now(self) -> str:
        second, rest = divmod(time.time_ns(), 1_000_000_000)
        if second != self._second:
            self._second, self._text = (
                second,
                time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)),
            )
        return f"{self._text}.{rest // 1000:06d}Z"


def configure(settings: Settings) -> RequestLog:
    """Route structlog and stdlib logging to one JSON stream: `log_file`, or stdout or stderr.

    Returns the request log, which writes to it too. Raises OSError if the file cannot be written.
    """
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    stream = Stream(partial(_opened, settings))
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # Without local variables, which hold what clients sent.
        structlog.processors.ExceptionRenderer(
            structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        ),
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(serializer=_encode)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.BytesLoggerFactory(cast("BinaryIO", stream)),
    )
    handler = logging.StreamHandler(_Text(stream))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                *shared,
                structlog.stdlib.add_logger_name,
                structlog.stdlib.ExtraAdder(),
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(serializer=_encode_text),
            ],
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # Requests are logged by http/base.py; Tornado would repeat them.
    logging.getLogger("tornado.access").propagate = False
    return RequestLog(stream, level)


def _opened(settings: Settings) -> IO[bytes]:
    if (path := settings.log_file) is None:
        return cast("IO[bytes]", getattr(sys, settings.log_stream).buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("ab", buffering=0)


def _encode(event: Any, **_: Any) -> bytes:
    return msgspec.json.encode(event, enc_hook=str)


def _encode_text(event: Any, **_: Any) -> str:
    return _encode(event).decode()


class _Text:
    """A text stream over the binary one that structlog writes to."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        self._stream.write(text.encode())

    def flush(self) -> None:
        self._stream.flush()
