"""The request path: admission, lane, packing, inference."""
