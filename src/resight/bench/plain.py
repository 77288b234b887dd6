"""TransReID as one would first write it: float32, every token through every block, the parts one after another, and
each picture opened, resized and augmented by itself with Pillow. What ours is measured against."""

import copy
import random
from pathlib import Path
from typing import Any, cast

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor, nn

from resight.model.blocks import OverlapPatchEmbed
from resight.model.jigsaw import rearrange

_PARTS, _SHIFT, _PAD = 4, 5, 10


class PlainTransReID(nn.Module):
    """ViT with SIE over cameras, with or without JPM, a BNNeck and a classifier for each feature.

    Args:
        backbone: a timm ViT with patches of 16.
        size: height and width.
        stride: of the patches.
        jpm: whether local features are made.
        classes: identities.
        cameras: rows of the SIE.
    """

    def __init__(
        self, backbone: str, size: tuple[int, int], stride: int, jpm: bool, classes: int, cameras: int
    ) -> None:
        super().__init__()

        def patches(**options: Any) -> OverlapPatchEmbed:
            return OverlapPatchEmbed(**options, stride=stride)

        net = cast(Any, timm.create_model(backbone, img_size=size, embed_layer=patches, num_classes=0))
        self.patch_embed, self.cls_token, self.pos_embed = net.patch_embed, net.cls_token, net.pos_embed
        self.blocks, self.last, self.norm = net.blocks[:-1], net.blocks[-1], net.norm
        self.side = nn.Parameter(torch.zeros(cameras, 1, net.embed_dim))
        self.local = nn.Sequential(copy.deepcopy(net.blocks[-1]), copy.deepcopy(net.norm)) if jpm else None
        branches = 1 + (_PARTS if jpm else 0)
        self.necks = nn.ModuleList(nn.BatchNorm1d(net.embed_dim) for _ in range(branches))
        self.heads = nn.ModuleList(nn.Linear(net.embed_dim, classes, bias=False) for _ in range(branches))

    def forward(self, pictures: Tensor, camera: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """[B, 3, H, W] and int64 [B] to features [B, D] and logits [B, C], of each branch."""
        x = self.patch_embed(pictures)  # [B, N, D]
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed + 3.0 * self.side[camera]
        for block in self.blocks:
            x = block(x)
        features = [self.norm(self.last(x))[:, 0]]
        if self.local is not None:
            moved = rearrange(x[:, 1:], _SHIFT, 2)
            length = (x.shape[1] - 1) // _PARTS
            for n in range(_PARTS):
                part = torch.cat([x[:, :1], moved[:, n * length : (n + 1) * length]], 1)
                features.append(self.local(part)[:, 0])
        logits = [head(neck(f)) for f, neck, head in zip(features, self.necks, self.heads, strict=True)]
        return features, logits


def plain_batch(paths: list[Path], size: tuple[int, int]) -> Tensor:
    """Opens, resizes, flips, pads, crops, normalises and erases pictures one by one: float32 [B, 3, H, W]."""
    return torch.stack([_picture(path, size) for path in paths])


def _picture(path: Path, size: tuple[int, int]) -> Tensor:
    height, width = size
    with Image.open(path) as opened:
        image = opened.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    padded = Image.new("RGB", (width + 2 * _PAD, height + 2 * _PAD))
    padded.paste(image, (_PAD, _PAD))
    left, top = random.randint(0, 2 * _PAD), random.randint(0, 2 * _PAD)
    cut = padded.crop((left, top, left + width, top + height))
    x = torch.from_numpy(np.array(cut)).permute(2, 0, 1).float().div(255).sub(0.5).div(0.5)
    if random.random() < 0.5:
        tall, wide = random.randint(20, height // 2), random.randint(20, width // 2)
        row, column = random.randint(0, height - tall), random.randint(0, width - wide)
        x[:, row : row + tall, column : column + wide] = torch.randn(3, tall, wide)
    return x
