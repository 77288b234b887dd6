"""Measuring this machine: ours against a plain way of doing the same, in one run."""
