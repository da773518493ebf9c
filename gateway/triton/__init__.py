"""Everything that speaks to Triton: replicas, errors, the embedded server."""

import os

# gRPC notes every fork of a process that has channels; ours fork only to start programs.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
