"""Patches and transformer blocks, with timm's weights and names.

B batch, N patches, T = 1 + N tokens, D width, h heads, d = D / h.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, cast

import torch
from timm.layers.attention import Attention as TimmAttention
from timm.layers.drop import DropPath
from timm.layers.layer_scale import LayerScale
from timm.models.vision_transformer import Block as TimmBlock
from torch import Tensor, nn
from torch.nn import functional as F

from resight.device import forms_attention


class OverlapPatchEmbed(nn.Module):
    """Cuts a picture into patches that may overlap and projects each to width D (He et al. 2021, equation 2).

    The grid is (H - P) // S + 1 by (W - P) // S + 1 for patch size P and stride S.

    Args:
        img_size: height and width in pixels.
        patch_size: P; timm gives it from the backbone's name.
        stride: S; None for P, where patches do not overlap.
        in_chans: channels of the picture.
        embed_dim: D.
        bias: whether the projection has one.
    """

    def __init__(
        self,
        img_size: tuple[int, int],
        patch_size: int,
        in_chans: int,
        embed_dim: int,
        bias: bool = True,
        stride: int | None = None,
        **_timm: Any,
    ) -> None:
        super().__init__()
        step = stride or patch_size
        self.patch_size = (patch_size, patch_size)
        self.grid_size = ((img_size[0] - patch_size) // step + 1, (img_size[1] - patch_size) // step + 1)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        self.proj = nn.Conv2d(in_chans, embed_dim, patch_size, step, bias=bias)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, N, D], row by row of the grid."""
        if images.device.type != "cpu" or not torch.is_grad_enabled():
            return self.proj(images).flatten(2).transpose(1, 2)
        step = cast(tuple[int, int], self.proj.stride)  # a CPU is slow at a convolution's gradient, not at a product's
        patches = F.unfold(images, self.patch_size, stride=step).transpose(1, 2)  # [B, N, 3 P P]
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class SplitHeads(nn.Module):
    """[B, T, n D] -> [n, B, h, T, d], n = 3 for queries, keys and values; a module so that its output can be seen."""

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.heads, self.width = heads, width

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, n D] -> [n, B, h, T, d]."""
        b, t, _ = x.shape
        return x.reshape(b, t, -1, self.heads, self.width).permute(2, 0, 3, 1, 4)


class AttentionWeights(nn.Module):
    """softmax(Q K^T * scale); a module so that its output can be seen."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        """[B, h, Q, d], [B, h, T, d] -> [B, h, Q, T]."""
        return ((q * self.scale) @ k.transpose(-2, -1)).softmax(-1)


class Attention(nn.Module):
    """Multi-head self-attention over a timm attention's weights, able to answer for the first tokens alone.

    `explicit` forms the [B, h, Q, T] weights; so does training where that is faster. Otherwise a fused kernel is used.
    Both give the same result.
    """

    def __init__(self, timm: TimmAttention) -> None:
        super().__init__()
        self.qkv, self.proj, self.proj_drop = timm.qkv, timm.proj, timm.proj_drop
        self.q_norm, self.k_norm, self.attn_drop = timm.q_norm, timm.k_norm, timm.attn_drop
        self.split = SplitHeads(timm.num_heads, timm.head_dim)
        self.weights = AttentionWeights(timm.scale)
        self.explicit = False

    def forward(self, x: Tensor, queries: int | None, scale: nn.Module) -> Tensor:
        """[B, T, D] -> [B, Q, D] for the first Q = `queries` tokens (all T where None), through the layer scale."""
        if queries is None:
            q, k, v = self.split(self.qkv(x)).unbind(0)
        else:
            d = x.shape[-1]
            weight, bias = self.qkv.weight, cast(Tensor | None, self.qkv.bias)
            bias_q, bias_kv = (None, None) if bias is None else (bias[:d], bias[d:])
            q = self.split(F.linear(x[:, :queries], weight[:d], bias_q))[0]
            k, v = self.split(F.linear(x, weight[d:], bias_kv)).unbind(0)
        q, k = self.q_norm(q), self.k_norm(k)
        formed = (
            torch.is_grad_enabled() or torch.compiler.is_compiling()
        )  # fused with what is around it by the compiler
        if self.explicit or (formed and forms_attention(k.device, k.dtype, k.shape[2])):
            out = self.attn_drop(self.weights(q, k)) @ v
        else:
            drop = self.attn_drop.p if self.training else 0.0
            out = F.scaled_dot_product_attention(q, k, v, dropout_p=drop, scale=self.weights.scale)
        return self.proj_drop(scaled_linear(self.proj, scale, out.transpose(1, 2).flatten(2)))


class Block(TimmBlock):
    """A pre-norm transformer block that can be computed for its first tokens alone.

    Only the class token of the last block is used further, so only its query, projection and MLP need computing:
    the same number for a fraction of the work.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.attn = Attention(cast(TimmAttention, self.attn))
        self.compiled = False
        """Whether training runs it as torch.compile makes it: the small steps between the products become few."""

    def forward(self, x: Tensor, queries: int | None = None) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """[B, T, D] -> [B, Q, D] for the first Q = `queries` tokens; all T where None."""
        steps = _compiled_steps() if self.compiled and torch.is_grad_enabled() else Block.steps
        return steps(self, x, queries, _kept(self.drop_path1, x), _kept(self.drop_path2, x))

    def steps(self, x: Tensor, queries: int | None, first: Tensor | None, second: Tensor | None) -> Tensor:
        """`forward`, what drop-path keeps of each branch, [B, 1, 1], being drawn already."""
        y = x[:, :queries] + _dropped(self.attn(self.norm1(x), queries, self.ls1), first)
        return y + _dropped(self._mlp(self.norm2(y)), second)

    def _mlp(self, x: Tensor) -> Tensor:
        mlp = cast(Any, self.mlp)
        return mlp.drop2(scaled_linear(mlp.fc2, self.ls2, mlp.norm(mlp.drop1(mlp.act(mlp.fc1(x))))))


@cache
def _compiled_steps() -> Callable[..., Tensor]:
    """One for all blocks, which differ in their weights alone."""
    return torch.compile(Block.steps, dynamic=False)


def _kept(path: nn.Module, x: Tensor) -> Tensor | None:
    """[B, 1, 1]: 0 for the pictures that drop-path takes a branch from, 1 / (1 - p) for the others; None for no p."""
    if not (isinstance(path, DropPath) and path.training and path.drop_prob):
        return None
    return path(x.new_ones(len(x), 1, 1))


def _dropped(branch: Tensor, kept: Tensor | None) -> Tensor:
    return branch if kept is None else branch * kept.to(branch.dtype)


def scaled_linear(linear: nn.Linear, scale: nn.Module, x: Tensor) -> Tensor:
    """scale(linear(x)), the layer scale taken into the weights: [D, D] products instead of [B, T, D] ones."""
    if not isinstance(scale, LayerScale):
        return linear(x)
    bias = cast(Tensor | None, linear.bias)
    return F.linear(x, scale.gamma[:, None] * linear.weight, None if bias is None else scale.gamma * bias)


def fold_and_cast_weights(network: nn.Module, dtype: torch.dtype) -> None:
    """Readies a network that will not be trained any more: layer scales go into the weights, and weights of products
    become `dtype` once, as autocast would make them at every call."""
    for module in network.modules():
        if isinstance(module, Block):
            for name, linear in (("ls1", module.attn.proj), ("ls2", cast(Any, module.mlp).fc2)):
                scale = getattr(module, name)
                if isinstance(scale, LayerScale):
                    linear.weight.data = scale.gamma.data[:, None] * linear.weight.data
                    if linear.bias is not None:
                        linear.bias.data = scale.gamma.data * linear.bias.data
                    setattr(module, name, nn.Identity())
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.to(dtype)
