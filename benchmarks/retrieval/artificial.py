"""Artificial embeddings that are like a network's: a common mean that is most of their length, identities around it, a
small shift by camera, and scatter between the images of one identity."""

from pathlib import Path

import numpy as np

SIZES = {  # queries, gallery, identities, cameras
    "market": (3_368, 15_913, 750, 6),
    "msmt17": (11_659, 82_161, 3_060, 15),
    "million": (10_000, 1_000_000, 50_000, 100),
}
WIDTH = 768


def make(name: str, folder: Path, dtype=np.float32) -> Path:
    """Write `query.npy`, `gallery.npy` and `labels.npz` of one of the sizes, in blocks, unless they exist."""
    queries, size, identities, cameras = SIZES[name]
    target = folder / f"{name}-{np.dtype(dtype).name}"
    if (target / "labels.npz").exists():
        return target
    target.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    mean = rng.standard_normal(WIDTH).astype(np.float32)
    camera_shift = rng.standard_normal((cameras, WIDTH)).astype(np.float32)
    code = rng.standard_normal((identities, 64)).astype(np.float32)  # identities differ in 64 directions
    directions = rng.standard_normal((64, WIDTH)).astype(np.float32) / 8
    labels = {}
    for side, count in (("query", queries), ("gallery", size)):
        identity, camera = rng.integers(0, identities, count), rng.integers(0, cameras, count)
        labels |= {f"{side}_id": identity, f"{side}_camera": camera}
        embeddings = np.lib.format.open_memmap(target / f"{side}.npy", "w+", dtype, (count, WIDTH))
        for start in range(0, count, 20_000):
            part = slice(start, min(start + 20_000, count))
            x = (
                2.5 * mean
                + (code[identity[part]] + 1.1 * rng.standard_normal((part.stop - start, 64), np.float32)) @ directions
            )
            x += 0.15 * camera_shift[camera[part]] + 0.6 * rng.standard_normal((part.stop - start, WIDTH), np.float32)
            embeddings[part] = x / np.linalg.norm(x, axis=1, keepdims=True)
        embeddings.flush()
    np.savez(target / "labels.npz", **labels)
    return target
