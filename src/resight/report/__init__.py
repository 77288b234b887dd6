"""Rankings to pictures."""
