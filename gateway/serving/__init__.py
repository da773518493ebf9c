"""The request path: admission, batching, packing, inference."""
