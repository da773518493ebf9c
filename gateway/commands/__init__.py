"""What `gateway` can do besides serving: wheels, locks, environments."""
