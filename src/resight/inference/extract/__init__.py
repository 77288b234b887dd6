"""Embeddings of many pictures in one file."""
