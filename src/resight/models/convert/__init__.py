"""Foreign checkpoints, one family a file."""
