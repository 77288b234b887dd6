"""Embeddings to rankings to numbers. Knows no data set. Q queries, G gallery items, D width."""
