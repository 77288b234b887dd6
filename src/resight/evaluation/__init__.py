"""A model, or stored embeddings, to figures."""
