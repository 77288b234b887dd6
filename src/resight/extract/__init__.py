"""Embeddings of many pictures, in a file: in shards, by one process, several, or a cluster."""
