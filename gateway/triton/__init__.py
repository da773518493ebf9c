"""Everything that speaks to Triton: replicas, errors, the embedded server."""

import os

# gRPC prints a line at every fork of a process that has channels; ours fork only to start programs.
# It reads this variable when it is imported, so this is the last moment to set it.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
