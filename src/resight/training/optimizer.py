"""The optimizer and its parameter groups."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from resight.config.optimization import Optimizer, Schedule
from resight.training.schedule import learning_rate

_HEADS = re.compile(r"^(necks|(fused_)?heads|fusion|projection|bottleneck|classifier|backbone\.(nets\.\d+\.)?sie)\b")
_CLASSIFIERS = re.compile(r"^((fused_)?heads|classifier)\b")
_BLOCK = re.compile(r"^backbone\.(?:nets\.\d+\.)?(?:net\.)?blocks\.(\d+)\.")
_STEM = re.compile(r"^backbone\.(?:nets\.\d+\.)?(?:net\.)?(patch_embed|cls_token|reg_token|pos_embed|norm_pre)\b")
_TOKENS = re.compile(r"(cls_token|reg_token|pos_embed|sie\.table|necks\.\d+\.weight)$")


def parameter_groups(
    parameters: Iterable[tuple[str, nn.Parameter]],
    settings: Optimizer,
    depth: int = 0,
    layers: Mapping[str, int] | None = None,
) -> list[dict[str, Any]]:
    """Group parameters by learning rate and weight decay.

    Args:
        parameters: names and parameters; those without gradients are left out.
        settings: learning rates, factors and decay.
        depth: number n of blocks, for layer-wise decay: the learning rate of block i is multiplied by
            `layer_decay ** (n - i)`, that of the patch embedding by `layer_decay ** (n + 1)`; layers after the blocks
            have the base rate.
        layers: the layer of a parameter, 0 to `depth`, where its name does not tell it.

    Returns:
        for each group `params`, `names`, `weight_decay` and `lr`; and for `set_learning_rate` the rate `base`, with
        layer decay, and the `factor` of biases or heads.
    """
    groups: dict[tuple[float, float, float, bool], dict[str, Any]] = {}
    for name, parameter in parameters:
        if not parameter.requires_grad:
            continue
        bias = name.endswith("bias")
        factor = settings.bias_lr_factor if bias else 1.0
        factor *= settings.head_lr_factor if _HEADS.match(name) else 1.0
        factor *= settings.classifier_lr_factor if _CLASSIFIERS.match(name) else 1.0
        base = settings.lr * settings.layer_decay ** (depth + 1 - _layer(name, depth, layers or {}))
        decay = settings.bias_weight_decay if bias else settings.weight_decay
        if not settings.decay_vectors and (parameter.ndim <= 1 or _TOKENS.search(name)):
            decay = 0.0
        group = groups.setdefault(
            (base, factor, decay, isinstance(parameter, DTensor)),  # a fused step cannot mix sharded and unsharded
            {"params": [], "names": [], "lr": base * factor, "weight_decay": decay, "base": base, "factor": factor},
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def make_optimizer(groups: list[dict[str, Any]], settings: Optimizer) -> torch.optim.Optimizer:
    """Create the optimizer of the groups, with torch's fused step."""
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, fused=True)
    kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=settings.lr, betas=settings.betas, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, schedule: Schedule, epoch: float) -> float:
    """Set the learning rate of every group for an epoch, counted from 1; return the rate of the highest base rate."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(schedule, epoch, group["base"], group["factor"])
    return learning_rate(schedule, epoch, max(group["base"] for group in optimizer.param_groups))


def freeze(model: nn.Module) -> None:
    """Clear the gradients of pre-trained parameters, so that the optimizer changes neither them nor their momentum."""
    for name, parameter in model.named_parameters():
        if not _HEADS.match(name):
            parameter.grad = None


@torch.no_grad()
def update_ema(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Update the moving average of a model: average = decay x average + (1 - decay) x model; buffers are copied."""
    for mean, current in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(current, 1 - decay)
    for mean, current in zip(average.buffers(), model.buffers(), strict=True):
        mean.copy_(current)


def _layer(name: str, depth: int, layers: Mapping[str, int]) -> int:
    if name in layers:
        return layers[name]
    if _STEM.match(name):
        return 0
    if re.match(r"backbone\.(nets\.\d+\.)?jpm\.block\.", name):
        return depth
    block = _BLOCK.match(name)
    return int(block.group(1)) + 1 if block else depth + 1
