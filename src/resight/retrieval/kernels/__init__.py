"""The fast paths of ranking."""
