"""A synthetic data set."""
