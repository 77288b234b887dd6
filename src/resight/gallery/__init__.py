"""Embeddings at rest: kept, searched, named and forgotten."""
