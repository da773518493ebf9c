"""Triton with preprocessing inside: an ensemble of a Python tokenizer and an ONNX model."""
