"""The sub-commands of `gateway`."""
