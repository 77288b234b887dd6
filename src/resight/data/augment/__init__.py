"""The random part of preprocessing."""
