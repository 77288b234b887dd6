"""The optimizer and its parameter groups."""

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from resight.config.sections import Optimizer, Schedule
from resight.training.schedule import learning_rate

_HEADS = re.compile(r"^(necks|heads|bottleneck|classifier|backbone\.sie)\b")
_BLOCK = re.compile(r"^backbone\.blocks\.(\d+)\.")
_STEM = re.compile(r"^backbone\.(patch_embed|cls_token|reg_token|pos_embed|norm_pre)\b")
_TOKENS = re.compile(r"(cls_token|reg_token|pos_embed|sie\.table)$")


def parameter_groups(
    parameters: Iterable[tuple[str, nn.Parameter]], settings: Optimizer, depth: int = 0
) -> list[dict[str, Any]]:
    """Groups what is trained by learning rate and weight decay.

    Args:
        parameters: names and parameters; frozen ones are left out.
        settings: rates, factors and decay.
        depth: number of blocks, for layer-wise decay; block i of n learns at `layer_decay ** (n - i)` of the base, the
            patch embedding at `layer_decay ** (n + 1)`, what comes after the blocks at the base itself.

    Returns:
        for each group its `params`, their `names`, `weight_decay`, `lr`, and what a schedule needs: `base` (with layer
        decay) and `factor` (of biases or heads over it).
    """
    groups: dict[tuple[float, float, float, bool], dict[str, Any]] = {}
    for name, parameter in parameters:
        if not parameter.requires_grad:
            continue
        bias = name.endswith("bias")
        factor = settings.bias_lr_factor if bias else 1.0
        factor *= settings.head_lr_factor if _HEADS.match(name) else 1.0
        base = settings.lr * settings.layer_decay ** (depth + 1 - _layer(name, depth))
        decay = settings.bias_weight_decay if bias else settings.weight_decay
        if not settings.decay_vectors and (parameter.ndim <= 1 or _TOKENS.search(name)):
            decay = 0.0
        group = groups.setdefault(
            (base, factor, decay, isinstance(parameter, DTensor)),  # no fused step takes both kinds at once
            {"params": [], "names": [], "lr": base * factor, "weight_decay": decay, "base": base, "factor": factor},
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def make_optimizer(groups: list[dict[str, Any]], settings: Optimizer) -> torch.optim.Optimizer:
    """The optimizer over the groups, in torch's fused form."""
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, fused=True)
    kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=settings.lr, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, schedule: Schedule, epoch: float) -> float:
    """Sets every group's rate for an epoch (counted from 1); returns the highest base rate's."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(schedule, epoch, group["base"], group["factor"])
    return learning_rate(schedule, epoch, max(group["base"] for group in optimizer.param_groups))


def freeze(model: nn.Module) -> None:
    """Takes the gradients from all that pre-training gave, so that an optimizer leaves it, and its momentum, alone."""
    for name, parameter in model.named_parameters():
        if not _HEADS.match(name):
            parameter.grad = None


@torch.no_grad()
def update_ema(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Moves an average towards the model: average = decay x average + (1 - decay) x model; buffers are copied."""
    for mean, own in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(own, 1 - decay)
    for mean, own in zip(average.buffers(), model.buffers(), strict=True):
        mean.copy_(own)


def _layer(name: str, depth: int) -> int:
    if _STEM.match(name):
        return 0
    if name.startswith("backbone.jpm.block."):
        return depth
    block = _BLOCK.match(name)
    return int(block.group(1)) + 1 if block else depth + 1
