"""A data set that we paint."""
