"""One step of training with hooks on every module, and what came out of it."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from resight.config.run import Run
from resight.data.loader import Batch, Loader
from resight.models.transreid import TransReID
from resight.progress import Progress
from resight.report.walkthrough.example import Example
from resight.report.walkthrough.record import Recorded, recorded
from resight.training.context import TrainContext
from resight.training.distributed import DistributedContext
from resight.training.optimizer import set_learning_rate
from resight.training.state import State, start
from resight.training.step import train_step


@dataclass(frozen=True)
class TrainedStep:
    """A step of training, recorded."""

    context: TrainContext
    state: State
    batch: Batch
    """As the loader gave it."""
    images: Tensor
    """Float32 [R, 3, H, W], what entered the network."""
    side_info: dict[str, Tensor]
    """int64 [R] by kind, likewise."""
    rows: Tensor | None
    """int64 [B, M], or None where the network does not fuse."""
    records: list[Recorded]
    values: dict[str, Tensor]
    """Losses and accuracy."""
    flops: dict[str, int]
    """Of each module, for one image or one sighting, by the module's name; of the whole backbone by `backbone`."""


def train_one_step(run: Run, example: Example) -> TrainedStep:
    """Take one step of training on the example's sightings, as `resight train` does, and record every tensor.

    The draws of the process are as before afterwards.

    Raises:
        ConfigError: the recipe's settings exclude each other.
    """
    drawn = torch.get_rng_state()
    numbers = random.getstate()
    try:
        context = TrainContext.create(
            run, example.vocabulary, DistributedContext(0, 1, torch.device("cpu")), Progress(quiet=True)
        )
        state = start(context)
        batch = _load(run, example)
        return _step(context, state, batch)
    finally:
        torch.set_rng_state(drawn)
        random.setstate(numbers)


def _load(run: Run, example: Example) -> Batch:
    images = run.preprocessing
    loader = Loader(example.split.train, example.vocabulary, images.size, images.train_interpolation, images.scaling)
    return next(loader.batches([list(range(len(example.split.train)))]))


def _step(context: TrainContext, state: State, batch: Batch) -> TrainedStep:
    state.model.train()
    state.epoch = context.run.optimizer.freeze_epochs + 1  # train all layers
    set_learning_rate(state.optimizer, context.run.schedule, 1)
    inputs: list[tuple[Any, ...]] = []
    handle = state.backbone.register_forward_pre_hook(lambda module, arguments: inputs.append(arguments))
    try:
        with recorded(state.model) as records:
            values = train_step(context, state, batch, (slice(0, len(batch.identity)), len(batch.identity)))
    finally:
        handle.remove()
    images, side_info = inputs[0][:2]
    rows = inputs[0][2] if len(inputs[0]) > 2 else None
    values = {name: value for name, value in values.items() if name != "images"}
    flops = _count_flops(state.model, images, side_info, rows)
    return TrainedStep(context, state, batch, images, side_info, rows, records, values, flops)


@torch.no_grad()
def _count_flops(
    model: TransReID, images: Tensor, side_info: Mapping[str, Tensor], rows: Tensor | None
) -> dict[str, int]:
    """Count the operations of a forward pass in evaluation mode: of one image, and of one sighting in the fusion."""
    model.eval()
    with recorded(model), FlopCounterMode(display=False) as counter:  # attention as matrix products, which are counted
        model(images[:1], {kind: labels[:1] for kind, labels in side_info.items()})
    flops = {name.partition(".")[2]: sum(by.values()) for name, by in counter.get_flop_counts().items()}
    if model.fusion is not None and rows is not None:
        present = int((rows[0] >= 0).sum())
        of_first = {kind: labels[:present] for kind, labels in side_info.items()}
        features, tokens = model.backbone.features_and_tokens(images[:present], of_first)
        with FlopCounterMode(display=False) as counter:
            model.fusion(features, tokens, rows[:1])
        flops |= {f"fusion{name.removeprefix('Fusion')}": sum(by.values())
                  for name, by in counter.get_flop_counts().items()}  # fmt: skip
    return flops


def thumbnails_of(batch: Batch) -> tuple[tuple[bytes | None, ...], ...]:
    """Return the images of a batch as PNG files: for each sighting one for each modality, None where it is absent."""
    return tuple(
        tuple(
            _png(image.permute(1, 2, 0).numpy()) if is_present else None
            for image, is_present in zip(images, present, strict=True)
        )
        for images, present in zip(batch.images, batch.present.tolist(), strict=True)
    )


def _png(pixels: np.ndarray) -> bytes:
    picture = Image.fromarray(pixels)
    picture.thumbnail((96, 96))
    stream = BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()
