"""Tornado + ONNX Runtime."""
