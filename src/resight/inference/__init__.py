"""Pictures to embeddings."""
