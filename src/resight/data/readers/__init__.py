"""Readers of data set layouts, one family a file. Nothing here imports torch."""
