"""The golden cases: weights and inputs that anyone can make again, by the recipe in golden/README.md."""

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

GOLDEN = Path(__file__).parent / "golden"
MODELS = (
    "market_vit_base",
    "market_transreid_stride12_sie_jpm",
    "deit_small_baseline",
    "seed_trimodal_view3_224",
)


@dataclass(frozen=True)
class Golden:
    spec: dict[str, Any]
    options: dict[str, Any]
    state: dict[str, torch.Tensor]
    images: torch.Tensor
    expected: dict[str, np.ndarray]


def load(name: str) -> Golden:
    spec = json.loads((GOLDEN / f"{name}.json").read_text())
    options = dict(zip(spec["options"][::2], spec["options"][1::2], strict=True)) | {"MODEL.DROP_PATH": 0.0}
    state = {key: _weight(key, shape) for key, shape in spec["state_dict"].items()}
    rng = np.random.default_rng(spec["image_seed"])
    images = rng.standard_normal((spec["batch"], 3, *spec["size"])).astype(np.float32)
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return Golden(spec, options, state, torch.from_numpy(images), dict(arrays))


def _weight(key: str, shape: list[int]) -> torch.Tensor:
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    v = rng.standard_normal(int(np.prod(shape))).astype(np.float32).reshape(shape)
    if "running_var" in key:
        v = 1 + 0.1 * abs(v)
    elif len(shape) == 1 and key.endswith(".weight"):
        v = 1 + 0.1 * v
    else:
        v = 0.05 * v
    return torch.from_numpy(v.astype(np.float32))
