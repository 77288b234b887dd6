"""The cases of ../shared/golden/weights: weights and images that anyone can make again, by the recipe in its README."""

import hashlib
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conftest import SHARED

FOLDER = SHARED / "golden" / "weights"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


@dataclass(frozen=True)
class Case:
    spec: dict[str, Any]
    state: dict[str, torch.Tensor]
    images: torch.Tensor
    side_info: dict[str, torch.Tensor] | None
    expected: dict[str, np.ndarray]

    def save(self, file: Path) -> Path:
        """Write the checkpoint file as its authors do."""
        content: Any = self.state
        for name in reversed(self.spec["container"]):
            content = {name: content}
        torch.save(content, file)
        return file


def load(name: str) -> Case:
    spec = json.loads((FOLDER / f"{name}.json").read_text())
    with np.load(FOLDER / f"{name}.npz") as arrays:
        expected = dict(arrays)
    state = {key: _tensor(spec, key, shape, expected) for key, shape in spec["state_dict"].items()}
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode() + state[key].numpy().tobytes())
    assert digest.hexdigest() == spec["state_sha256"], "the recipe of the weights is not followed"
    rng = np.random.default_rng(spec["image_seed"])
    images = rng.standard_normal((spec["batch"], 3, *spec["size"])).astype(np.float32)
    kinds = [kind for kind in ("camera", "view") if kind in spec]
    side_info = {kind: torch.tensor(spec[kind]) for kind in kinds} or None
    return Case(spec, state, torch.from_numpy(images), side_info, expected)


def _tensor(spec: dict[str, Any], key: str, shape: list[int], arrays: dict[str, np.ndarray]) -> torch.Tensor:
    if key in spec.get("values", {}):
        return torch.tensor(spec["values"][key]).reshape(shape)
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    buffer = next((name for name in spec.get("integer_arrays", ()) if key.endswith(name)), None)
    if buffer is not None:
        return torch.from_numpy(arrays[f"buffer_{buffer}"]).long()
    v = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(int(np.prod(shape))).astype(np.float32)
    v = v.reshape(shape)
    if "running_var" in key:
        v = 1 + 0.1 * abs(v)
    elif len(shape) == 1 and key.endswith(".weight"):
        v = 1 + 0.1 * v
    elif key.endswith(".p") and shape == [1]:
        v = 3 + 0.1 * v
    elif spec["recipe"] == "fan_in" and len(shape) > 1 and key.endswith(".weight"):
        v = v * np.float32(np.sqrt(spec["gain"] / np.prod(shape[1:])))
    else:
        v = 0.05 * v
    return torch.from_numpy(v.astype(np.float32))
