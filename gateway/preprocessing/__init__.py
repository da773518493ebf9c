"""Runs preprocessors away from the event loop."""
