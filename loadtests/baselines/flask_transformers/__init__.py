"""Gunicorn + Flask + Transformers."""
