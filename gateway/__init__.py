"""A Tornado gateway in front of NVIDIA Triton: versioned preprocessing, batching, releases."""
