"""gRPC channels to a Triton server."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import grpc
from tritonclient.grpc import aio as triton

OPTIONS = (
    # Find a restarted server within a second; gRPC's default backs off to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Give up on an attempt to connect after two seconds: packets may have been dropped.
    ("grpc.min_reconnect_backoff_ms", 2000),
    # A channel that replaces another one must not get that one's dead connection.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)


class Tls(NamedTuple):
    """PEM files: `ca` verifies servers; `certificate` and `key` identify this gateway to them."""

    ca: Path
    certificate: Path | None = None
    key: Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files. Raises OSError."""
        ca, certificate, key = (path.read_bytes() if path else None for path in self)
        return grpc.ssl_channel_credentials(ca, key, certificate)


class Server(NamedTuple):
    """A server to connect to; with `tls`, `name` is that in its certificate, if not its host."""

    endpoint: str
    tls: Tls | None = None
    name: str | None = None

    def channel(self) -> grpc.aio.Channel:
        """Return a channel for inference. Raises OSError if a file of `tls` cannot be read."""
        if self.tls is None:
            return grpc.aio.insecure_channel(self.endpoint, OPTIONS)
        return grpc.aio.secure_channel(self.endpoint, self.tls.credentials(), self._options)

    def client(self) -> triton.InferenceServerClient:
        """Return a client for everything else. Raises OSError, as `channel`."""
        credentials = self.tls.credentials() if self.tls else None
        return triton.InferenceServerClient(
            self.endpoint, creds=credentials, channel_args=self._options
        )

    @property
    def _options(self) -> tuple[tuple[str, str | int], ...]:
        return (*OPTIONS, ("grpc.ssl_target_name_override", self.name)) if self.name else OPTIONS
