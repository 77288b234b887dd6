"""Pictures to embeddings: backbone, side information, jigsaw, BNNeck, heads, and the folder that holds them."""
