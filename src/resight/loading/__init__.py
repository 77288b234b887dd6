"""Sightings to batches: decode, resize, gather P x K, augment. [B, M, 3, H, W] with B sightings of M modalities."""
