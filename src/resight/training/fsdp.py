"""Fully sharded training (FSDP2), for backbones that do not fit on one device.

Every process has one shard of the weights, the gradients and the optimizer's state, and writes it to disk itself (a DCP
checkpoint). DCP takes 0.1 s to import, so only the functions that use it do; every training imports this module.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from resight.errors import CheckpointError
from resight.models.blocks import Block


def shard(backbone: nn.Module, size: int, device: torch.device) -> None:
    """Shard a backbone in place: the weights of a block are gathered only while it is computed.

    Args:
        backbone: to shard.
        size: number of processes.
        device: of this process.
    """
    mesh = init_device_mesh(device.type, (size,))
    for module in list(backbone.modules()):
        if isinstance(module, Block):
            fully_shard(module, mesh=mesh)
    fully_shard(backbone, mesh=mesh)


def whole_weights(model: nn.Module) -> dict[str, Tensor]:  # words: ok
    """Gather all weights on the CPU of every process. Every process must call it."""
    return {
        name: (value.full_tensor() if isinstance(value, DTensor) else value).cpu()
        for name, value in model.state_dict().items()
    }


def load_whole(model: nn.Module, weights: dict[str, Tensor]) -> None:  # words: ok
    """Load unsharded weights: each process takes its shard."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    set_model_state_dict(model, cast("dict[str, Any]", weights), options=StateDictOptions(full_state_dict=True))


def write_shards(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write the weights and the optimizer's state, each process its shard. Every process must call it."""
    from torch.distributed.checkpoint.state_dict_saver import save

    save(_shards(model, optimizer), checkpoint_id=folder)


def read_shards(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Load what `write_shards` wrote, with any number of processes. Every process must call it.

    Raises:
        CheckpointError: the shards are corrupt, or of another model.
    """
    from torch.distributed.checkpoint.state_dict import set_model_state_dict, set_optimizer_state_dict
    from torch.distributed.checkpoint.state_dict_loader import load

    state = _shards(model, optimizer)
    try:
        load(state, checkpoint_id=folder)
    except Exception as error:
        raise CheckpointError(f"{folder} is corrupt, or of another model: {error}") from error
    set_model_state_dict(model, state["model"])
    set_optimizer_state_dict(model, optimizer, state["optimizer"])


def _shards(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_optimizer_state_dict

    return {"model": get_model_state_dict(model), "optimizer": get_optimizer_state_dict(model, optimizer)}


def clip(parameters: Iterable[nn.Parameter], max_norm: float) -> None:
    """Scale the gradients so that their total norm is at most `max_norm`; sharded and unsharded ones may be mixed."""
    trained = [p for p in parameters if p.grad is not None]
    groups = [[p for p in trained if isinstance(p.grad, DTensor) is sharded] for sharded in (False, True)]
    norms = [get_total_norm([cast(Tensor, p.grad) for p in group]) for group in groups if group]
    if not norms:
        return
    total = torch.stack([n.full_tensor() if isinstance(n, DTensor) else n for n in norms]).norm()
    for group in groups:
        clip_grads_with_norm_(group, max_norm, total)
