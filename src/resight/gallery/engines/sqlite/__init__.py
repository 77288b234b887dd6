"""The engine of galleries in a folder."""
