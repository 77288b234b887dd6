"""From batches of images to embeddings."""
