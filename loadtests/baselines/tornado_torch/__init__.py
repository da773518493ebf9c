"""Tornado + PyTorch (TorchScript)."""
