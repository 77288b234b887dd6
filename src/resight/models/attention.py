"""Where a transformer looks: the attention of the tokens that become the embedding, in the last block."""

import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from resight.errors import ConfigError
from resight.models.backbones.backbone import Backbone
from resight.models.backbones.eva import Eva
from resight.models.backbones.per_modality import PerModality
from resight.models.backbones.vit import ViT
from resight.models.blocks import Attention

_RECORDING: Final = threading.Lock()  # a module is switched to explicit weights for one recording at a time


@dataclass(frozen=True)
class TokenMap:
    """One image's patches: how much each is attended to, and its token."""

    attention: Tensor
    """float32 [rows, columns], sums to 1."""
    tokens: Tensor
    """float32 [N, D], the patches as they enter the last block; N = rows * columns."""


def map_tokens(backbone: Backbone, image: Tensor, side_info: Mapping[str, Tensor], name: str) -> TokenMap:
    """Compute the attention to the patches of one image in the last block, and the tokens of the patches.

    The attention is the mean over the heads, of the tokens that the embedding is made from: the class token, class and
    part tokens alike, or all patches alike where they are pooled. What goes to other tokens than patches is left out.

    The backbone is in evaluation mode, and the caller chooses autocast and inference mode.

    Args:
        backbone: of the model.
        image: [1, 3, H, W], preprocessed.
        side_info: labels, int64 [1] by kind.
        name: of the backbone, for the error text.

    Raises:
        ConfigError: the backbone has no attention between tokens of the whole image.
    """
    net: nn.Module = backbone
    if isinstance(backbone, PerModality):
        net = backbone.nets[max(0, int(side_info["modality"]))]
    if not isinstance(net, ViT | Eva):
        raise ConfigError(
            f"the backbone {name} has no class token or patch tokens, so there is no attention to show: an explanation "
            "needs a vision transformer"
        )
    source = net if isinstance(net, ViT) else net.net
    with recorded_attention(cast(Any, source.blocks[-1]).attn) as weights:
        tokens = net.features_and_tokens(image, side_info)[1]
    assert tokens is not None
    rows, columns = cast(Any, source.patch_embed).grid_size
    received = (_read_tokens(net, weights[0].shape[1])[:, None] * weights[0][0]).sum(
        0
    )  # [T], in float32 under autocast
    patches = received[net.prefix :]
    return TokenMap((patches / patches.sum()).view(rows, columns), tokens[0, net.prefix :].float().cpu())


@contextmanager
def recorded_attention(attention: nn.Module) -> Generator[list[Tensor]]:
    """Record the attention weights that the current thread computes with a module.

    Args:
        attention: our `Attention`, or one of timm's.

    Yields:
        a list that gets float32 [B, Q, T] on the CPU at each call: the mean over the heads; each row sums to 1.
    """
    recorded = list[Tensor]()
    thread = threading.get_ident()

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if threading.get_ident() == thread:
            recorded.append(output.float().mean(1).cpu())

    # The weights are a tensor in our explicit form, and in timm's without a fused kernel; both give the same result.
    is_ours = isinstance(attention, Attention)
    switch, value, point = ("explicit", True, "weights") if is_ours else ("fused_attn", False, "attn_drop")
    with _RECORDING:
        before = getattr(attention, switch)
        hook = attention.get_submodule(point).register_forward_hook(record)
        setattr(attention, switch, value)
        try:
            yield recorded
        finally:
            setattr(attention, switch, before)
            hook.remove()


def _read_tokens(net: ViT | Eva, count: int) -> Tensor:
    """How much of each of the `count` tokens that leave the last block the embedding reads; sums to 1."""
    start = torch.zeros(count)
    if "token" not in net.pool.name:
        start[net.prefix :] = 1 / (count - net.prefix)
    elif net.pool.name == "token":
        read = 1 + (net.part_tokens if isinstance(net, ViT) else 0)
        start[:read] = 1 / read
    else:  # the class token and a mean of the patches are added
        start[0] = 0.5
        start[net.prefix :] = 0.5 / (count - net.prefix)
    return start
