"""Jigsaw patch module, JPM (He et al. 2021, section 3.2)."""

import copy

import torch
from torch import Tensor, nn

from resight.models.blocks import Block


def rearrange(patches: Tensor, shift: int, groups: int) -> Tensor:
    """Shifts patches [B, N, D] and shuffles them between groups, so that each part covers the whole picture.

    The cut is counted with the class token, so `shift` - 1 patches move to the end. N that `groups` does not divide is
    filled up with the second-last token, as in the reference.
    """
    cut = max(shift - 1, 0)
    moved = torch.cat([patches[:, cut:], patches[:, :cut]], 1)
    short = -moved.shape[1] % groups
    if short:
        moved = torch.cat([moved, moved[:, -2:-1].expand(-1, short, -1)], 1)
    b, n, d = moved.shape
    return moved.view(b, groups, n // groups, d).transpose(1, 2).reshape(b, n, d)


class JPM(nn.Module):
    """Local features: each part's patches, with the class token, through one shared copy of the last block and norm.

    The parts go through as one batch. A part holds N // parts patches of the picture's N; what is left over is dropped.

    Args:
        block: the trunk's last block, copied.
        norm: the trunk's last norm, copied.
        parts: number of local features.
        shift: where the token sequence is cut.
        groups: of the shuffle.
        shuffled: off for parts that are plain runs of patches.
        prefix: tokens before the first patch (class token and registers).
    """

    def __init__(
        self, block: Block, norm: nn.Module, parts: int, shift: int, groups: int, shuffled: bool, prefix: int
    ) -> None:
        super().__init__()
        self.block, self.norm = copy.deepcopy(block), copy.deepcopy(norm)
        self.parts, self.shift, self.groups, self.shuffled, self.prefix = parts, shift, groups, shuffled, prefix

    def forward(self, tokens: Tensor) -> list[Tensor]:
        """[B, T, D], as they leave the block before the last -> one [B, D] a part."""
        b, _, d = tokens.shape
        token, patches = tokens[:, :1], tokens[:, self.prefix :]
        length = patches.shape[1] // self.parts
        if self.shuffled:
            patches = rearrange(patches, self.shift, self.groups)
        runs = patches[:, : length * self.parts].reshape(b, self.parts, length, d)
        runs = torch.cat([token[:, None].expand(-1, self.parts, -1, -1), runs], 2)  # [B, parts, 1 + length, D]
        local = self.norm(self.block(runs.flatten(0, 1), queries=1))[:, 0]  # [B * parts, D]
        return list(local.unflatten(0, (b, self.parts)).unbind(1))
