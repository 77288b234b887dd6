"""The HTTP service: a gallery and its model behind an API, for programs and agents."""
