"""Builds what releases are made of: wheels, and the locks that pin them."""
