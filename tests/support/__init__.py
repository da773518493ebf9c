"""What several tests share: running stacks, golden requests, free ports."""
