"""Weights, gradients and the optimizer's state in parts, a part a process (FSDP2), for backbones that no one device
holds; and that state on disk, each process writing its own (a DCP checkpoint)."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from resight.errors import CheckpointError
from resight.models.blocks import Block


def shard(backbone: nn.Module, size: int, device: torch.device) -> None:
    """Shares a backbone's weights out, in place: a block's are together only while it is computed."""
    mesh = init_device_mesh(device.type, (size,))
    for module in list(backbone.modules()):
        if isinstance(module, Block):
            fully_shard(module, mesh=mesh)
    fully_shard(backbone, mesh=mesh)


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """Every weight, put together on the CPU of every process. All must call it."""
    return {
        name: (value.full_tensor() if isinstance(value, DTensor) else value).cpu()
        for name, value in model.state_dict().items()
    }


def load_whole(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Takes over weights that are whole: each process its part."""
    set_model_state_dict(model, cast("dict[str, Any]", weights), options=StateDictOptions(full_state_dict=True))


def write_shards(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Writes the weights and the optimizer's state, each process its part. All must call it."""
    save(_shards(model, optimizer), checkpoint_id=folder)


def read_shards(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Takes over what `write_shards` wrote, by however many processes. All must call it.

    Raises:
        CheckpointError: it is damaged, or of another model.
    """
    held = _shards(model, optimizer)
    try:
        load(held, checkpoint_id=folder)
    except Exception as error:
        raise CheckpointError(f"{folder} is damaged, or of another model: {error}") from error
    set_model_state_dict(model, held["model"])
    set_optimizer_state_dict(model, optimizer, held["optimizer"])


def _shards(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return {"model": get_model_state_dict(model), "optimizer": get_optimizer_state_dict(model, optimizer)}


def clip(parameters: Iterable[nn.Parameter], most: float) -> None:
    """Scales all gradients so that their norm together is at most `most`; some may be in parts and others whole."""
    held = [p for p in parameters if p.grad is not None]
    kinds = [[p for p in held if isinstance(p.grad, DTensor) is parts] for parts in (False, True)]
    norms = [get_total_norm([cast(Tensor, p.grad) for p in kind]) for kind in kinds if kind]
    if not norms:
        return
    total = torch.stack([n.full_tensor() if isinstance(n, DTensor) else n for n in norms]).norm()
    for kind in kinds:
        clip_grads_with_norm_(kind, most, total)
