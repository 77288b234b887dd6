"""A network through torch.compile, for inference."""

from collections.abc import Callable, Mapping
from importlib import import_module

import torch
from torch import Tensor

Network = Callable[[Tensor, Mapping[str, Tensor]], Tensor]
"""float32 [B, 3, H, W] and int64 [B] by kind of side information to [B, D]."""


def compile_network(embed: Network) -> Network:
    """Return `embed` through torch.compile, its weights laid out once as the products need them."""
    compiled, settings = torch.compile(embed, dynamic=False), import_module("torch._inductor.config")

    def run(images: Tensor, side_info: Mapping[str, Tensor]) -> Tensor:
        count = len(images)
        more = (1 << (count - 1).bit_length()) - count
        images = torch.cat([images, images[:1].expand(more, -1, -1, -1)])
        side_info = {kind: torch.cat([numbers, numbers[:1].expand(more)]) for kind, numbers in side_info.items()}
        with settings.patch(freezing=True):
            return compiled(images, side_info)[:count]

    return run
