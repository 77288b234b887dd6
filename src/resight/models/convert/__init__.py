"""Conversion of checkpoints of other implementations; one family of checkpoints in each file."""
