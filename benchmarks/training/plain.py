"""TransReID as one would first write it: float32, every token through every block, the JPM parts one after another, and
each image opened, resized and augmented alone with Pillow. The baseline that the other benchmarks compare with."""

import copy
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor, nn

from resight.config.sections import Augmentation
from resight.data.decode import FORMATS
from resight.models.blocks import OverlapPatchEmbed
from resight.models.jpm import rearrange

_PARTS, _SHIFT = 4, 5


class PlainTransReID(nn.Module):
    """ViT with SIE, with or without JPM, a BNNeck and a classifier for each feature.

    Args:
        backbone: a timm ViT with patches of 16.
        size: height and width.
        stride: of the patches.
        jpm: whether local features are computed.
        classes: identities.
        side_labels: rows of the SIE.
    """

    def __init__(
        self, backbone: str, size: tuple[int, int], stride: int, jpm: bool, classes: int, side_labels: int
    ) -> None:
        super().__init__()

        def patches(**options: Any) -> OverlapPatchEmbed:
            return OverlapPatchEmbed(**options, stride=stride)

        vit = cast(Any, timm.create_model(backbone, img_size=size, embed_layer=patches, num_classes=0))
        self.patch_embed, self.cls_token, self.pos_embed = vit.patch_embed, vit.cls_token, vit.pos_embed
        self.blocks, self.last, self.norm = vit.blocks[:-1], vit.blocks[-1], vit.norm
        self.sie = nn.Parameter(torch.zeros(side_labels, 1, vit.embed_dim))
        self.local = nn.Sequential(copy.deepcopy(vit.blocks[-1]), copy.deepcopy(vit.norm)) if jpm else None
        branches = 1 + (_PARTS if jpm else 0)
        self.necks = nn.ModuleList(nn.BatchNorm1d(vit.embed_dim) for _ in range(branches))
        self.heads = nn.ModuleList(nn.Linear(vit.embed_dim, classes, bias=False) for _ in range(branches))

    def forward(self, images: Tensor, side_label: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """[B, 3, H, W] and int64 [B] to features [B, D] and logits [B, C], of each branch."""
        x = self.patch_embed(images)  # [B, N, D]
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed + 3.0 * self.sie[side_label]
        for block in self.blocks:
            x = block(x)
        features = [self.norm(self.last(x))[:, 0]]
        if self.local is not None:
            shuffled = rearrange(x[:, 1:], _SHIFT, 2)
            length = (x.shape[1] - 1) // _PARTS
            for n in range(_PARTS):
                part = torch.cat([x[:, :1], shuffled[:, n * length : (n + 1) * length]], 1)
                features.append(self.local(part)[:, 0])
        logits = [head(neck(f)) for f, neck, head in zip(features, self.necks, self.heads, strict=True)]
        return features, logits


def plain_batch(paths: Sequence[Path], size: tuple[int, int], augmentation: Augmentation) -> Tensor:
    """Open, resize, flip, pad, crop, normalise and erase images one by one: float32 [B, 3, H, W]."""
    return torch.stack([_image(path, size, augmentation) for path in paths])


def _image(path: Path, size: tuple[int, int], augmentation: Augmentation) -> Tensor:
    height, width = size
    pad = augmentation.pad
    with Image.open(path, formats=FORMATS) as file:
        image = file.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    if random.random() < augmentation.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    padded = Image.new("RGB", (width + 2 * pad, height + 2 * pad))
    padded.paste(image, (pad, pad))
    left, top = random.randint(0, 2 * pad), random.randint(0, 2 * pad)
    cropped = padded.crop((left, top, left + width, top + height))
    x = torch.from_numpy(np.array(cropped)).permute(2, 0, 1).float().div(255).sub(0.5).div(0.5)
    if random.random() < augmentation.erase:
        box_height, box_width = random.randint(20, height // 2), random.randint(20, width // 2)
        row, column = random.randint(0, height - box_height), random.randint(0, width - box_width)
        x[:, row : row + box_height, column : column + box_width] = torch.randn(3, box_height, box_width)
    return x
