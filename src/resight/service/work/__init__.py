"""What the routes call: a model and a gallery, and the threads, processes and queues between them."""
