"""Disk to sightings: one file per layout family, each a `read(root) -> Split`. No torch."""
