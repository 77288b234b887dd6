"""Embeddings made up to be like a network's: a common mean that is most of their length, identities around it, cameras
that pull a little, and pictures of one identity that scatter."""

from pathlib import Path

import numpy as np

SIZES = {  # queries, gallery, identities, cameras
    "market": (3_368, 15_913, 750, 6),
    "msmt17": (11_659, 82_161, 3_060, 15),
    "million": (10_000, 1_000_000, 50_000, 100),
}
WIDTH = 768


def make(name: str, folder: Path, dtype=np.float32) -> Path:
    """Writes `query.npy`, `gallery.npy` and `labels.npz` of one of the sizes, by stretches; again only if not there."""
    queries, size, identities, cameras = SIZES[name]
    target = folder / f"{name}-{np.dtype(dtype).name}"
    if (target / "labels.npz").exists():
        return target
    target.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    mean = rng.standard_normal(WIDTH).astype(np.float32)
    places = rng.standard_normal((cameras, WIDTH)).astype(np.float32)
    own = rng.standard_normal((identities, 64)).astype(np.float32)  # identities differ in 64 directions
    directions = rng.standard_normal((64, WIDTH)).astype(np.float32) / 8
    labels = {}
    for side, count in (("query", queries), ("gallery", size)):
        who, where = rng.integers(0, identities, count), rng.integers(0, cameras, count)
        labels |= {f"{side}_id": who, f"{side}_camera": where}
        held = np.lib.format.open_memmap(target / f"{side}.npy", "w+", dtype, (count, WIDTH))
        for start in range(0, count, 20_000):
            part = slice(start, min(start + 20_000, count))
            x = (
                2.5 * mean
                + (own[who[part]] + 1.1 * rng.standard_normal((part.stop - start, 64), np.float32)) @ directions
            )
            x += 0.15 * places[where[part]] + 0.6 * rng.standard_normal((part.stop - start, WIDTH), np.float32)
            held[part] = x / np.linalg.norm(x, axis=1, keepdims=True)
        held.flush()
    np.savez(target / "labels.npz", **labels)
    return target
