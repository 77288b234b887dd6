"""Backbones, one family of networks in each file."""
