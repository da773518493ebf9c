"""gRPC channels to a Triton server."""

from __future__ import annotations

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


def channel(endpoint: str) -> grpc.aio.Channel:
    """Return a channel for inference."""
    return grpc.aio.insecure_channel(endpoint, OPTIONS)


def client(endpoint: str) -> triton.InferenceServerClient:
    """Return a client for everything else."""
    return triton.InferenceServerClient(endpoint, channel_args=OPTIONS)
