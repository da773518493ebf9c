"""Finds by measurement how a model is best placed on this machine: `gateway tune`."""
