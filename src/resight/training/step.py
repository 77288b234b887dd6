"""One step of training, in as little memory as configured.

The loss needs the whole batch: the hardest positive and negative may be anywhere in it, and BatchNorm is over all of
it. The backbone, which takes the memory, does not. So images go through it in micro-batches: a first pass without
gradient gives the features; the loss and its gradient on them are those of the whole batch; a second pass sends that
gradient back, one micro-batch after another, with the same random draws (the gradient cache of Gao et al. 2021). With a
single micro-batch there is no second pass.

B images of the whole batch, R of this process; D width, C classes.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from resight.data.augment.augment import augment
from resight.data.loader import Batch
from resight.device import autocast
from resight.losses.objective import Objective, objective
from resight.models.transreid import Outputs
from resight.training.context import TrainContext
from resight.training.fsdp import clip
from resight.training.optimizer import freeze, update_ema
from resight.training.state import State

SideInfo = Mapping[str, Tensor]


def train_step(context: TrainContext, state: State, batch: Batch, part: tuple[slice, int]) -> dict[str, Tensor]:
    """Take one step.

    Args:
        context: of the training.
        state: is changed.
        batch: this process's part of the batch, on its device.
        part: which sightings of the whole batch they are, and how many that has.

    Returns:
        scalars of the whole batch: `loss`, `id`, `triplet`, `accuracy`, `center` where it is trained, and `images`.
    """
    run = context.run
    seed = (run.seed, state.epoch, state.step)

    # Augment: uint8 [b, M, 3, H, W] to float32, drawn as for the whole batch.
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence(seed).generate_state(2, np.uint64)[1]))
    images = augment(batch.images, run.augmentation, run.preprocessing.mean, run.preprocessing.std, generator, part)
    identity = batch.identity[batch.present.nonzero(as_tuple=True)[0]]  # [R], of every image that is present

    # Forward and backward: gradients of the whole batch's loss.
    state.optimizer.zero_grad(set_to_none=True)
    loss, outputs, identity = gradients(context, state, images[batch.present], batch.side_info(), identity, seed)

    # Update: freeze, clip, step, and the moving average.
    if state.epoch <= run.optimizer.freeze_epochs:
        freeze(state.model)
    if run.optimizer.clip is not None:
        state.scaler.unscale_(state.optimizer)
        clip(state.model.parameters(), run.optimizer.clip)
    state.scaler.step(state.optimizer)
    if state.center is not None and state.center_optimizer is not None:
        state.center.rescale_gradient(run.loss.center_weight)
        state.scaler.step(state.center_optimizer)
        state.center_optimizer.zero_grad(set_to_none=True)
    state.scaler.update()
    if state.average is not None:
        update_ema(state.average, state.model, run.optimizer.ema)

    accuracy = (outputs.logits[0].argmax(1) == identity).float().mean()
    values = {"loss": loss.total, "id": loss.id, "triplet": loss.triplet, "accuracy": accuracy}
    if state.center is not None:
        values["center"] = loss.center
    return {name: value.detach() for name, value in values.items()} | {"images": torch.tensor(len(identity))}


def gradients(
    context: TrainContext, state: State, images: Tensor, side_info: SideInfo, identity: Tensor, seed: tuple[int, ...]
) -> tuple[Objective, Outputs, Tensor]:
    """Add the gradients of the whole batch's loss to the model's parameters.

    Args:
        context: of the training.
        state: the model, wrapped for its processes, and the gradient scaler.
        images: float32 [R, 3, H, W], this process's part of the batch.
        side_info: int64 [R] by kind of side information.
        identity: int64 [R].
        seed: of the step's random draws.

    Returns:
        the loss, features and logits, and the identities [B], all of the whole batch.
    """
    distributed = context.distributed
    size = context.run.micro_batch_size or len(images)
    parts = [slice(start, min(start + size, len(images))) for start in range(0, len(images), size)]
    counts = distributed.gather(torch.tensor([len(parts)], device=images.device))
    before = int(counts[: distributed.rank].sum())
    seeds = [(*seed, before + n) for n in range(len(parts))]  # one for each micro-batch of the whole batch

    def forward(part: slice, part_seed: tuple[int, ...]) -> list[Tensor]:
        reseed(part_seed)
        with autocast(images.device, context.compute.precision):
            branches = state.backbone(images[part], {kind: labels[part] for kind, labels in side_info.items()})
        return [features.float() for features in branches]

    # Features of this process's images: a list over branches of [R, D].
    with torch.no_grad() if len(parts) > 1 else nullcontext():
        local = _joined([forward(part, part_seed) for part, part_seed in zip(parts, seeds, strict=True)])

    # Features of the whole batch, [B, D] each, as leaves of a graph of their own: heads, losses and their gradients.
    leaves = [distributed.gather(features).requires_grad_() for features in local]
    identities = distributed.gather(identity)  # [B]
    modality = distributed.gather(side_info["modality"])  # [B]
    logits = state.model.classify(leaves, identities)  # [B, C] each
    loss = objective(leaves, logits, identities, context.run.loss, state.center, modality)
    state.scaler.scale(loss.total).backward()

    # Back through the backbone: this process's rows; times the number of processes, whose mean is taken.
    sizes = distributed.gather(torch.tensor([len(identity)], device=images.device))
    first = int(sizes[: distributed.rank].sum())
    back = [_gradient(leaf)[first : first + len(identity)] * distributed.size for leaf in leaves]  # [R, D] each
    if len(parts) == 1:
        torch.autograd.backward(local, back)
    else:
        for n, (part, part_seed) in enumerate(zip(parts, seeds, strict=True)):
            with _without_sync(state.backbone) if n < len(parts) - 1 else nullcontext():
                torch.autograd.backward(forward(part, part_seed), [gradient[part] for gradient in back])
    return loss, Outputs(leaves, logits), identities


def reseed(seed: tuple[int, ...]) -> None:
    """Make torch's draws (drop-path, dropout) follow from some numbers."""
    torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]))


def _joined(parts: Sequence[list[Tensor]]) -> list[Tensor]:
    if len(parts) == 1:
        return parts[0]
    return [torch.cat(branch) for branch in zip(*parts, strict=True)]


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def _without_sync(backbone: nn.Module):
    """Gradients are averaged over the processes after the last micro-batch only."""
    return backbone.no_sync() if isinstance(backbone, DistributedDataParallel) else nullcontext()
