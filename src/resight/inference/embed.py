"""Embedding: sightings to vectors of unit length."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F

from resight.config.sections import Evaluation, Precision, Preprocessing
from resight.data.augment.augment import normalize
from resight.data.loader import Batch, Loader
from resight.data.sightings import SightingTable
from resight.data.vocabulary import Vocabulary
from resight.device import autocast, resolve_compute
from resight.models.transreid import TransReID


def embed_table(
    model: TransReID,
    table: SightingTable,
    vocabulary: Vocabulary,
    preprocessing: Preprocessing,
    settings: Evaluation,
    precision: Precision = "auto",
    progress: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
    """Embeds every sighting of a table, in its order.

    Args:
        model: on any device; is put in evaluation mode.
        table: N sightings.
        vocabulary: the model's own.
        pictures: the model's own preprocessing.
        settings: how modalities are fused, whether mirror images count, and the batch.
        precision: of the matrix products; `auto` is measured on this machine.
        progress: is told how many sightings are done.

    Processes that train together each embed a share, and each get the whole.

    Returns:
        float32 [N, E], each of unit length; E is the model's width, times the modalities where they are concatenated.

    Raises:
        PictureError: a picture cannot be decoded.
    """
    model.eval()
    device = next(model.parameters()).device
    compute = resolve_compute(device, precision, settings.batch)
    loader = Loader(table, vocabulary, preprocessing.size, preprocessing.test_interpolation)
    step = max(1, settings.batch // len(vocabulary.modalities))
    first, last = _share(len(table))
    rows = [list(range(i, min(i + step, last))) for i in range(first, last, step)]
    done: list[np.ndarray] = []
    with torch.inference_mode(), autocast(device, compute.precision):
        for batch in loader.batches(rows):
            done.append(embed_batch(model, batch.to(device), preprocessing, settings).cpu().numpy())
            progress(sum(map(len, done)))
    return _together(np.concatenate(done) if done else np.zeros((0, model.width), np.float32))


def _share(count: int) -> tuple[int, int]:
    if not dist.is_initialized():
        return 0, count
    rank, size = dist.get_rank(), dist.get_world_size()
    return rank * count // size, (rank + 1) * count // size


def _together(own: np.ndarray) -> np.ndarray:
    if not dist.is_initialized():
        return own
    found = [own] * dist.get_world_size()
    dist.all_gather_object(found, own)
    return np.concatenate([part for part in found if len(part)])


def embed_batch(model: TransReID, batch: Batch, preprocessing: Preprocessing, settings: Evaluation) -> Tensor:
    """float32 [B, E] of unit length. An absent modality is a zero in a concatenation, and no part of a mean."""
    x = normalize(batch.images[batch.present], preprocessing.mean, preprocessing.std)  # [R, 3, H, W]
    side_info = batch.side_info()
    found = F.normalize(model.embed(x, side_info))  # [R, D]
    if settings.flip:
        found = F.normalize(found + F.normalize(model.embed(x.flip(-1), side_info)))
    each = found.new_zeros((*batch.present.shape, found.shape[1]))  # [B, M, D]
    each[batch.present] = found
    return F.normalize(each.flatten(1) if settings.fusion == "concat" else each.sum(1))
