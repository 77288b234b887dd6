"""Outputs and identities to one number to make small."""
