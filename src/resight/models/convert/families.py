"""The families of checkpoints, by the names of their tensors."""

import re
from collections.abc import Mapping
from typing import Final

from torch import Tensor

_FAMILIES: Final = (  # the first one with a name that matches
    (r"necks\.0\.", "a model of resight itself"),
    (r"image_encoder\.", "CLIP-ReID"),
    (r"base\.part_token1$", "PASS"),
    (r"backbone\.part_token1$", "PASS before its fine-tuning"),
    (r"base\.patch_embed\.conv\.", "TransReID-SSL with a convolutional stem (MODEL.STEM_CONV)"),
    (r"base\.(patch_embed\.projection|stages)\.", "SOLIDER"),
    (r"backbone\.(patch_embed\.projection|stages)\.", "SOLIDER before its fine-tuning"),
    (r"heads\.(bnneck|bottleneck)\.", "fast-reid"),
    (r"conv2\.0\.conv1\.", "OSNet of torchreid"),
    (r"backbone\.conv_stem\.", "MiewID"),
    (r"layers\.0\.blocks\.", "a Swin transformer of timm, such as MegaDescriptor"),
    (r"b1\.0\.", "TransReID with JPM"),
    (r"base\.blocks\.", "TransReID without JPM"),
    (r"base\.layer1\.", "the ResNet-50 baseline of the reference (MODEL.NAME=resnet50)"),
    (r"(backbone\.)?blocks\.0\.attn\.", "a vision transformer without the heads of re-identification"),
    (r"(backbone\.)?layer1\.0\.", "a plain ResNet"),
)
_TRANSFORMERS: Final = {  # by width and depth
    (768, 12): "vit_base_patch16_224_TransReID",
    (768, 8): "vit_small_patch16_224_TransReID",
    (384, 12): "deit_small_patch16_224_TransReID",
}


def family_of(tensors: Mapping[str, Tensor]) -> str | None:
    """Say which family of checkpoints the names of tensors are typical of; None where none is known."""
    for pattern, family in _FAMILIES:
        if any(re.match(pattern, name) for name in tensors):
            return family + _transformer(tensors)
    return None


def _transformer(tensors: Mapping[str, Tensor]) -> str:
    token = tensors.get("base.cls_token")
    if token is None or token.ndim != 3:
        return ""
    depth = len({name.split(".")[2] for name in tensors if name.startswith("base.blocks.")})
    name = _TRANSFORMERS.get((token.shape[2], depth))
    return "" if name is None else f" and MODEL.TRANSFORMER_TYPE={name}"
