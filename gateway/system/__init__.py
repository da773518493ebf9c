"""Process and host plumbing."""
