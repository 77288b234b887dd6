"""Backbones, one family of networks a file."""
