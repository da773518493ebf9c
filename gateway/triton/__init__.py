"""Everything that speaks to Triton: replicas, errors, the embedded server."""
