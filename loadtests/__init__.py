"""Load tests and benchmarks: what drives the gateway from outside."""
