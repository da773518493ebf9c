"""Breaks a running gateway in every way it should survive: `python -m loadtests.chaos --help`."""
