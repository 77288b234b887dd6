"""A configuration to a run folder: the loop, and what it needs."""
