"""One step of training, in as little memory as is wanted.

The loss needs the whole batch: the hardest positive and negative may be anywhere in it, and BatchNorm is over all of
it. The backbone, which takes the memory, does not: so pictures go through it in pieces. A first pass without gradient
gives the features; the loss and its gradient on them are the whole batch's; a second pass sends that gradient back,
piece by piece, with the same random draws (the gradient cache of Gao et al. 2021). With one piece there is no second
pass.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from resight.config.sections import Loss, ResolvedPrecision
from resight.device import autocast
from resight.losses.objective import Objective, objective
from resight.models.transreid import Outputs
from resight.training.distributed import DistributedContext
from resight.training.state import State

SideInfo = Mapping[str, Tensor]


def gradients(
    state: State,
    images: Tensor,
    side_info: SideInfo,
    identity: Tensor,
    settings: Loss,
    precision: ResolvedPrecision,
    context: DistributedContext,
    seed: tuple[int, ...],
    micro_batch_size: int | None = None,
) -> tuple[Objective, Outputs, Tensor]:
    """Adds the gradients of the whole batch's loss to the model's parameters.

    Args:
        state: holds the model, as the team wraps it, and the gradient's scaler.
        pictures: float32 [R, 3, H, W], this process's share of the batch.
        side: int64 [R] by kind of side information, likewise.
        identity: int64 [R], likewise.
        settings: of the loss.
        precision: of the matrix products.
        team: the processes that share the batch.
        seed: what the step's random draws follow from.
        piece: pictures that go through the backbone at once; None for the share whole.

    Returns:
        the loss, what it was taken of, and the identities, all of the whole batch.
    """
    size = micro_batch_size or len(images)
    parts = [slice(start, min(start + size, len(images))) for start in range(0, len(images), size)]
    before = sum(context.gather(torch.tensor([len(parts)], device=images.device))[: context.rank].tolist())
    seeds = [(*seed, before + n) for n in range(len(parts))]  # of each piece of the whole batch, whoever has it

    def features(part: slice, seed: tuple[int, ...]) -> list[Tensor]:
        reseed(seed)
        with autocast(images.device, precision):
            found = state.backbone(images[part], {kind: labels[part] for kind, labels in side_info.items()})
        return [f.float() for f in found]

    with torch.no_grad() if len(parts) > 1 else nullcontext():
        own = _joined([features(part, seed) for part, seed in zip(parts, seeds, strict=True)])
    whole = [context.gather(f).requires_grad_() for f in own]  # [B, D] each
    everyone, modality = context.gather(identity), context.gather(side_info["modality"])
    logits = state.model.classify(whole, everyone)
    loss = objective(whole, logits, everyone, settings, state.center, modality)
    state.scaler.scale(loss.total).backward()

    first = int(context.gather(torch.tensor([len(identity)], device=images.device))[: context.rank].sum())
    back = [_gradient(f)[first : first + len(identity)] * context.size for f in whole]  # the team takes the mean
    if len(parts) == 1:
        torch.autograd.backward(own, back)
    else:
        for n, (part, seed) in enumerate(zip(parts, seeds, strict=True)):
            with _alone(state.backbone) if n < len(parts) - 1 else nullcontext():
                torch.autograd.backward(features(part, seed), [g[part] for g in back])
    return loss, Outputs(whole, logits), everyone


def reseed(seed: tuple[int, ...]) -> None:
    """Makes torch's draws (drop-path, dropout) follow from some numbers."""
    torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]))


def _joined(pieces: Sequence[list[Tensor]]) -> list[Tensor]:
    if len(pieces) == 1:
        return pieces[0]
    return [torch.cat(branch) for branch in zip(*pieces, strict=True)]


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def _alone(backbone: nn.Module):
    """Gradients stay with this process until the last piece."""
    return backbone.no_sync() if isinstance(backbone, DistributedDataParallel) else nullcontext()
