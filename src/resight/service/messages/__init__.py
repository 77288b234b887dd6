"""What requests and answers contain: typed models, forms, and the reading of forms."""
