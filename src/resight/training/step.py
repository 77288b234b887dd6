"""One step of training, in as little memory as configured.

The loss needs the whole batch: the hardest positive and negative may be anywhere in it, and BatchNorm is over all of
it. The backbone, which takes the memory, does not. So images go through it in micro-batches: a first pass without
gradient gives the features; the loss and its gradient on them are those of the whole batch; a second pass sends that
gradient back, one micro-batch after another, with the same random draws (the gradient cache of Gao et al. 2021). With a
single micro-batch there is no second pass.

Where the network fuses modalities, a micro-batch has whole sightings; the loss is that of the images and that of the
sightings' fused features.

B images of the whole batch, R of this process; N sightings of this process; M modalities, D width, C classes.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from resight.data.augment.augment import augment, drop_by_identity, drop_modalities
from resight.data.loader import Batch
from resight.device import autocast
from resight.losses.objective import add, objective
from resight.models.fusion import Fused
from resight.models.transreid import Outputs
from resight.training.context import TrainContext
from resight.training.fsdp import clip
from resight.training.inputs import Inputs, Learned
from resight.training.optimizer import freeze, update_ema
from resight.training.state import State


def train_step(context: TrainContext, state: State, batch: Batch, part: tuple[slice, int]) -> dict[str, Tensor]:
    """Take one step.

    Args:
        context: of the training.
        state: is changed.
        batch: this process's part of the batch, on its device.
        part: which sightings of the whole batch they are, and how many that has.

    Returns:
        scalars of the whole batch: `loss`, `id`, `triplet`, `accuracy`, `images`; `center` and
        `cross_modal` where they have a weight, and the figures of the distillation losses where there is a teacher.
    """
    run = context.run
    seed = (run.seed, state.epoch, state.step)

    # Augment: uint8 [b, M, 3, H, W] to float32, drawn as for the whole batch.
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence(seed).generate_state(2, np.uint64)[1]))
    images = augment(batch.images, run.augmentation, run.preprocessing.mean, run.preprocessing.std, generator, part)
    if run.augmentation.drop_modality or run.augmentation.drop_by_modality:
        batch = replace(batch, present=_remaining(context, batch, part, generator))
    rows = batch.rows() if state.model.fusion is not None else None
    identity = batch.identity[batch.present.nonzero(as_tuple=True)[0]]  # [R], of every image that is present

    # Forward and backward: gradients of the whole batch's loss.
    state.optimizer.zero_grad(set_to_none=True)
    inputs = Inputs(images[batch.present], batch.side_info(), identity, rows)
    learned = gradients(context, state, inputs, batch.identity, seed)

    # Update: freeze, clip, step, and the moving average.
    if state.epoch <= run.optimizer.freeze_epochs:
        freeze(state.model)
    if run.optimizer.clip is not None:
        state.scaler.unscale_(state.optimizer)
        clip(state.parameters, run.optimizer.clip)
    state.scaler.step(state.optimizer)
    if state.center is not None and state.center_optimizer is not None:
        state.center.rescale_gradient(run.loss.center_weight)
        state.scaler.step(state.center_optimizer)
        state.center_optimizer.zero_grad(set_to_none=True)
    state.scaler.update()
    if state.average is not None:
        update_ema(state.average, state.model, run.optimizer.ema)

    values = learned.figures()
    if state.center is not None:
        values["center"] = learned.loss.center
    if run.loss.cross_modal_weight:
        values["cross_modal"] = learned.loss.cross_modal
    return {name: value.detach() for name, value in values.items()} | {"images": torch.tensor(len(identity))}


def _remaining(context: TrainContext, batch: Batch, part: tuple[slice, int], generator: torch.Generator) -> Tensor:
    """Drop modalities as the settings say: bool [b, M], the images that are used."""
    settings = context.run.augmentation
    present = batch.present.cpu()
    if settings.drop_by_modality:
        modalities = context.card.vocabulary.modalities
        probability = [settings.drop_by_modality.get(name, 0.0) for name in modalities]
        present = drop_by_identity(present, batch.identity, probability, generator)
    if settings.drop_modality:
        present = drop_modalities(present, settings.drop_modality, generator, part)
    return present.to(batch.present.device)


def gradients(context: TrainContext, state: State, inputs: Inputs, identity: Tensor, seed: tuple[int, ...]) -> Learned:
    """Add the gradients of the whole batch's loss to the model's parameters.

    Args:
        context: of the training.
        state: the model, wrapped for its processes, and the gradient scaler.
        inputs: this process's part of the batch.
        identity: int64 [N], of its sightings.
        seed: of the step's random draws.

    Returns:
        loss, features, logits and identities, all of the whole batch.
    """
    distributed, device = context.distributed, inputs.images.device
    parts = inputs.parts(context.run.micro_batch_size)
    counts = distributed.gather(torch.tensor([len(parts)], device=device))
    before = int(counts[: distributed.rank].sum())
    seeds = [(*seed, before + n) for n in range(len(parts))]  # one for each micro-batch of the whole batch

    def forward(part: tuple[slice, slice], part_seed: tuple[int, ...]) -> list[Tensor]:
        reseed(part_seed)
        with autocast(device, context.compute.precision):
            branches = state.backbone(*inputs.of(*part))
        return [features.float() for features in branches]

    # Features of this process's part: a list over branches of [R, D]; then, where modalities are fused, of [N, M, D],
    # and the modalities' weights [N, M].
    with torch.no_grad() if len(parts) > 1 else nullcontext():
        local = _joined([forward(part, part_seed) for part, part_seed in zip(parts, seeds, strict=True)])

    # Features of the whole batch as leaves of a graph of their own: heads, losses and their gradients.
    leaves = [distributed.gather(features).requires_grad_() for features in local]
    learned = _loss(context, state, leaves, inputs, identity)
    if state.distiller is not None:
        targets = state.distiller.targets(inputs.images, inputs.side_info, context.run.micro_batch_size)
        learned = learned.distilled(state.distiller.loss(state.model, leaves, distributed.gather(targets)))
    state.scaler.scale(learned.loss.total).backward()

    # Back through the backbone: this process's rows; times the number of processes, whose mean is taken.
    back = [_local_gradient(context, leaf, len(features)) for leaf, features in zip(leaves, local, strict=True)]
    if len(parts) == 1:
        _backward(local, back)
        return learned
    image_branches = len(back) if inputs.rows is None else len(back) // 2
    for n, (part, part_seed) in enumerate(zip(parts, seeds, strict=True)):
        gradient = [rows[part[branch >= image_branches]] for branch, rows in enumerate(back)]
        with _without_sync(state.backbone) if n < len(parts) - 1 else nullcontext():
            _backward(forward(part, part_seed), gradient)
    return learned


def _loss(
    context: TrainContext, state: State, leaves: list[Tensor], inputs: Inputs, sighting_identity: Tensor
) -> Learned:
    """Compute BNNecks, heads and losses of the whole batch from its features."""
    model, settings, gather = state.model, context.run.loss, context.distributed.gather
    identity = gather(inputs.identity)
    modality = gather(inputs.side_info["modality"])
    if inputs.rows is None or model.fusion is None:
        logits = model.classify(leaves, identity)
        return Learned(
            objective(leaves, logits, identity, settings, state.center, modality), Outputs(leaves, logits), identity
        )
    branches = len(leaves) // 2
    images, fused = leaves[:branches], Fused(model.fusion.kind, leaves[branches:-1], leaves[-1])
    present, fused_identity = gather(inputs.rows >= 0), gather(sighting_identity)
    logits, fused_logits = model.classify_fused(images, modality, fused, present, (identity, fused_identity))
    loss = objective(images, logits, identity, settings, state.center, modality)
    fused_loss = objective(fused.features, fused_logits, fused_identity, settings)
    return Learned(add(loss, fused_loss, settings.fused_weight), Outputs(fused.features, fused_logits), fused_identity)


def _backward(outputs: list[Tensor], gradients: list[Tensor]) -> None:
    """Send gradients back; the weights of a fusion that learns none have no graph."""
    pairs = [pair for pair in zip(outputs, gradients, strict=True) if pair[0].requires_grad]
    torch.autograd.backward([output for output, _ in pairs], [gradient for _, gradient in pairs])


def _local_gradient(context: TrainContext, leaf: Tensor, count: int) -> Tensor:
    """The gradient of this process's `count` rows of a leaf, times the number of processes."""
    distributed = context.distributed
    sizes = distributed.gather(torch.tensor([count], device=leaf.device))
    first = int(sizes[: distributed.rank].sum())
    return _gradient(leaf)[first : first + count] * distributed.size


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
