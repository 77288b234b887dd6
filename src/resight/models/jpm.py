"""Jigsaw patch module, JPM (He et al. 2021, section 3.2)."""

import copy

import torch
from torch import Tensor, nn

from resight.models.blocks import Block


def rearrange(patches: Tensor, shift: int, groups: int) -> Tensor:
    """Shift patches and shuffle them between groups, so that each part covers the whole image.

    Args:
        patches: [B, N, D].
        shift: the class token counts in it, so `shift` - 1 patches move to the end.
        groups: of the shuffle.

    Returns:
        [B, N', D], where N' is N, or the next multiple of `groups`: the sequence is then padded with its second-last
        patch, as in the reference.
    """
    # Move the first patches to the end: [B, N, D].
    moved_count = max(shift - 1, 0)
    shifted = torch.cat([patches[:, moved_count:], patches[:, :moved_count]], 1)

    # Pad to a multiple of the groups: [B, N', D].
    padding = -shifted.shape[1] % groups
    if padding:
        shifted = torch.cat([shifted, shifted[:, -2:-1].expand(-1, padding, -1)], 1)

    # Take the first patch of each group, then the second of each, and so on: [B, N', D].
    b, n, d = shifted.shape
    return shifted.view(b, groups, n // groups, d).transpose(1, 2).reshape(b, n, d)


class JPM(nn.Module):
    """Local features: each part's patches, with the class token, through one shared copy of the last block and norm.

    The parts are one batch. Each part has N // parts of the image's N patches; the remaining patches are left out.

    Args:
        block: the backbone's last block, which is copied.
        norm: the backbone's last norm, which is copied.
        parts: number of local features.
        shift: of the token sequence, see `rearrange`.
        groups: of the shuffle.
        shuffled: whether patches are rearranged; else the parts are consecutive patches.
        prefix: number of tokens before the first patch (class token and registers).
    """

    def __init__(
        self, block: Block, norm: nn.Module, parts: int, shift: int, groups: int, shuffled: bool, prefix: int
    ) -> None:
        super().__init__()
        self.block = copy.deepcopy(block)
        self.norm = copy.deepcopy(norm)
        self.parts = parts
        self.shift = shift
        self.groups = groups
        self.shuffled = shuffled
        self.prefix = prefix

    def forward(self, tokens: Tensor) -> list[Tensor]:
        """Compute the local features from the tokens [B, T, D] that enter the last block: one [B, D] for each part."""
        # Separate the class token, [B, 1, D], from the patches, [B, N, D], and rearrange these.
        b, _, d = tokens.shape
        class_token = tokens[:, :1]
        patches = tokens[:, self.prefix :]
        part_length = patches.shape[1] // self.parts
        if self.shuffled:
            patches = rearrange(patches, self.shift, self.groups)

        # Divide the patches into parts and put the class token before each: [B, parts, 1 + N / parts, D].
        part_tokens = patches[:, : part_length * self.parts].reshape(b, self.parts, part_length, d)
        part_tokens = torch.cat([class_token[:, None].expand(-1, self.parts, -1, -1), part_tokens], 2)

        # Pass all parts through the shared block, for their class tokens alone: [B * parts, D].
        local = self.norm(self.block(part_tokens.flatten(0, 1), queries=1))[:, 0]
        return list(local.unflatten(0, (b, self.parts)).unbind(1))
