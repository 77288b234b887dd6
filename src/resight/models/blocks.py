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
    """Divides an image into patches that may overlap and projects each to width D (He et al. 2021, equation 2).

    The grid is (H - P) // S + 1 by (W - P) // S + 1 for patch size P and stride S. The arguments have timm's
    names.

    Args:
        img_size: height and width in pixels.
        patch_size: P in pixels; timm passes it by the backbone's name.
        in_chans: channels of the image.
        embed_dim: D.
        bias: whether the projection has a bias.
        stride: S in pixels; None for P, so that patches do not overlap.
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
        """Project the patches of images [B, 3, H, W], row by row of the grid: [B, N, D]."""
        if images.device.type != "cpu" or not torch.is_grad_enabled():
            return self.proj(images).flatten(2).transpose(1, 2)
        # On a CPU the gradient of a convolution is slow, so training copies the patches and multiplies: [B, N, 3 P P].
        step = cast(tuple[int, int], self.proj.stride)
        patches = F.unfold(images, self.patch_size, stride=step).transpose(1, 2)
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class SplitHeads(nn.Module):
    """Divides queries, keys and values into heads: [B, T, n D] -> [n, B, h, T, d], n = 3 for all of them.

    It is a module so that hooks can record its output.
    """

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.heads = heads
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        """Divide [B, T, n D] into heads: [n, B, h, T, d]."""
        b, t, _ = x.shape
        return x.reshape(b, t, -1, self.heads, self.width).permute(2, 0, 3, 1, 4)


class AttentionWeights(nn.Module):
    """softmax(Q K^T * scale); a module so that hooks can record its output."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        """Compute the weights of queries [B, h, Q, d] over keys [B, h, T, d]: [B, h, Q, T]."""
        return ((q * self.scale) @ k.transpose(-2, -1)).softmax(-1)


class Attention(nn.Module):
    """Multi-head self-attention with the weights of a timm attention, which can compute the first tokens alone.

    With `explicit`, and in training where that is faster, the weights [B, h, Q, T] are computed as a tensor. Otherwise
    a fused kernel is used. Both give the same result.
    """

    def __init__(self, timm: TimmAttention) -> None:
        super().__init__()
        self.qkv = timm.qkv
        self.proj = timm.proj
        self.proj_drop = timm.proj_drop
        self.q_norm = timm.q_norm
        self.k_norm = timm.k_norm
        self.attn_drop = timm.attn_drop
        self.split = SplitHeads(timm.num_heads, timm.head_dim)
        self.weights = AttentionWeights(timm.scale)
        self.explicit = False

    def forward(self, x: Tensor, queries: int | None, scale: nn.Module) -> Tensor:
        """Attend from the first Q = `queries` tokens (all T where None) to all tokens [B, T, D]: [B, Q, D].

        The layer scale `scale` is applied to the output.
        """
        # Project the input to queries [B, h, Q, d], keys and values [B, h, T, d].
        if queries is None:
            q, k, v = self.split(self.qkv(x)).unbind(0)
        else:
            width = x.shape[-1]
            weight = self.qkv.weight
            bias = cast(Tensor | None, self.qkv.bias)
            bias_q, bias_kv = (None, None) if bias is None else (bias[:width], bias[width:])
            q = self.split(F.linear(x[:, :queries], weight[:width], bias_q))[0]
            k, v = self.split(F.linear(x, weight[width:], bias_kv)).unbind(0)
        q = self.q_norm(q)
        k = self.k_norm(k)

        # Attend: [B, h, Q, d]. The compiler fuses explicit weights with the operations around them.
        trained = torch.is_grad_enabled() or torch.compiler.is_compiling()
        if self.explicit or (trained and forms_attention(k.device, k.dtype, k.shape[2])):
            attended = self.attn_drop(self.weights(q, k)) @ v
        else:
            drop = self.attn_drop.p if self.training else 0.0
            attended = F.scaled_dot_product_attention(q, k, v, dropout_p=drop, scale=self.weights.scale)

        # Join the heads and project: [B, Q, D].
        return self.proj_drop(scaled_linear(self.proj, scale, attended.transpose(1, 2).flatten(2)))


class Block(TimmBlock):
    """A pre-norm transformer block that can be computed for its first tokens alone.

    Only the class token of the last block is used further, so only its query, projection and MLP are computed: the
    result is the same, and the computation a fraction.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.attn = Attention(cast(TimmAttention, self.attn))
        self.compiled = False
        """Whether training uses torch.compile for this block, which fuses the small operations between the products."""

    def forward(self, x: Tensor, queries: int | None = None) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Transform tokens [B, T, D] and return the first Q = `queries` of them, all T where None: [B, Q, D]."""
        steps = _compiled_steps() if self.compiled and torch.is_grad_enabled() else Block.steps
        attention_mask = _draw_path_mask(self.drop_path1, x)
        mlp_mask = _draw_path_mask(self.drop_path2, x)
        return steps(self, x, queries, attention_mask, mlp_mask)

    def steps(self, x: Tensor, queries: int | None, attention_mask: Tensor | None, mlp_mask: Tensor | None) -> Tensor:
        """Compute `forward` with drop-path masks, [B, 1, 1] each, that are drawn already."""
        # Attention and its residual: [B, Q, D].
        attended = x[:, :queries] + _masked(self.attn(self.norm1(x), queries, self.ls1), attention_mask)
        # MLP and its residual: [B, Q, D].
        return attended + _masked(self._mlp(self.norm2(attended)), mlp_mask)

    def _mlp(self, x: Tensor) -> Tensor:
        mlp = cast(Any, self.mlp)
        return mlp.drop2(scaled_linear(mlp.fc2, self.ls2, mlp.norm(mlp.drop1(mlp.act(mlp.fc1(x))))))


@cache
def _compiled_steps() -> Callable[..., Tensor]:
    """Compile the steps once for all blocks, which differ in their weights alone."""
    return torch.compile(Block.steps, dynamic=False)


def _draw_path_mask(path: nn.Module, x: Tensor) -> Tensor | None:
    """Draw drop-path's factor of each image, [B, 1, 1]: 0 or 1 / (1 - p); None where nothing is dropped."""
    if not (isinstance(path, DropPath) and path.training and path.drop_prob):
        return None
    return path(x.new_ones(len(x), 1, 1))


def _masked(branch: Tensor, mask: Tensor | None) -> Tensor:
    return branch if mask is None else branch * mask.to(branch.dtype)


def scaled_linear(linear: nn.Linear, scale: nn.Module, x: Tensor) -> Tensor:
    """Compute scale(linear(x)), [B, T, D], with the layer scale multiplied into the weights [D, D] beforehand."""
    if not isinstance(scale, LayerScale):
        return linear(x)
    bias = cast(Tensor | None, linear.bias)
    return F.linear(x, scale.gamma[:, None] * linear.weight, None if bias is None else scale.gamma * bias)


def fold_and_cast_weights(network: nn.Module, dtype: torch.dtype) -> None:
    """Prepare a network for inference, in place: it cannot be trained afterwards.

    Layer scales are multiplied into the weights, and the weights of linear layers and convolutions are cast to `dtype`
    once, as autocast would do at every call.
    """
    # Multiply the layer scales into the weights before them.
    for module in network.modules():
        if isinstance(module, Block):
            for name, linear in (("ls1", module.attn.proj), ("ls2", cast(Any, module.mlp).fc2)):
                scale = getattr(module, name)
                if isinstance(scale, LayerScale):
                    linear.weight.data = scale.gamma.data[:, None] * linear.weight.data
                    if linear.bias is not None:
                        linear.bias.data = scale.gamma.data * linear.bias.data
                    setattr(module, name, nn.Identity())
    # Cast the weights of products.
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.to(dtype)
