"""The page: HTML for people, over the same service as the API."""
